"""Answers side by side: one prompt, two to four endpoints, each streaming into its own column with its own clock.

panel = compare([server.base, server.tuned], "two nodes, four GPUs each, three hours")
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import traitlets
from IPython.display import display
from pydantic import SecretStr

from ipytune.endpoints.background import as_messages
from ipytune.endpoints.client import Message
from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.exchange import Exchange, View
from ipytune.endpoints.records import Endpoint
from ipytune.widgets import picture
from ipytune.widgets.answers import pause_for, shown, static_answer, text_line
from ipytune.widgets.chat import wait_all
from ipytune.widgets.shown import Panel, script

_SHARED = "One server wrote these answers at the same time: each would be quicker alone."


class ComparePanel(Panel):
    """See the module.

    endpoints: two to four.   prompt: shown in the field, not sent yet.   system: a system message before the prompt.
    keys: by the endpoint's name, for those that name none.   options: fields of every request; the same for all, else
    the comparison means nothing.
    """

    _esm = script("answers.js", "compare.js")

    prompt = traitlets.Unicode("").tag(sync=True)
    columns: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        prompt: str = "",
        *,
        system: str | None = None,
        keys: Mapping[str, SecretStr] | None = None,
        **options: Any,
    ) -> None:
        if not 2 <= len(endpoints) <= 4:
            raise ValueError(f"A comparison takes two to four endpoints, not {len(endpoints)}.")
        super().__init__(prompt=prompt)
        self._lock = threading.RLock()
        self._endpoints = list(endpoints)
        self._system: list[Message] = [{"role": "system", "content": system}] if system else []
        self._keys = dict(keys or {})
        self._options = options
        self._exchanges: list[Exchange] = []
        self._views = [View(endpoint=endpoint) for endpoint in self._endpoints]
        self.columns = [{"endpoint": item.name, "model": item.model} for item in self._endpoints]

    def send(self, prompt: str | None = None) -> None:
        """Ask all endpoints at once, with the prompt in the field unless another is given. Returns at once."""
        self._begin(prompt)
        self.watch(self._look)

    def ask(self, prompt: str | None = None, timeout: float | None = None) -> tuple[View, ...]:
        """As `send`, then wait: a view for each endpoint, in their order; a failed answer is a view with its error."""
        exchanges = self._begin(prompt)
        with self.watched_here():
            wait_all(exchanges, self._look, timeout)
        return tuple(self._views)

    def cancel(self) -> None:
        """Stop all answers that are being written."""
        for exchange in self._exchanges:
            exchange.cancel()

    def actions(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {"send": lambda message: self.send(str(message.get("prompt", ""))), "cancel": lambda _: self.cancel()}

    def static_html(self) -> str:
        return picture.frame(
            "Side by side",
            f"{len(self._views)} answers",
            picture.prompt(self.prompt),
            picture.columns([static_answer(view) for view in self._views]),
        )

    def static_text(self) -> str:
        return "\n".join([f"ComparePanel\n> {self.prompt}", *(text_line(view) for view in self._views)])

    def _begin(self, prompt: str | None) -> list[Exchange]:
        with self._lock:
            if any(not exchange.done for exchange in self._exchanges):
                raise BadRequest("Answers are still being written.", "", "Wait for them, or cancel them.")
            words = self.prompt if prompt is None else prompt
            if not words.strip():
                raise BadRequest("There is nothing to send.", "The prompt is empty.", "Type a question.")
            messages = [*self._system, *as_messages(words)]
            self._exchanges = [
                Exchange(endpoint, messages, key=self._keys.get(endpoint.name), **self._options)
                for endpoint in self._endpoints
            ]
            roots = {endpoint.api_root for endpoint in self._endpoints}
            shared = _SHARED if len(roots) < len(self._endpoints) else ""
            self.publish(prompt=words, problem={}, busy=True, note=shared)
            return self._exchanges

    def _look(self) -> float | None:
        with self._lock:
            over = all(exchange.done for exchange in self._exchanges)
            self._views = [exchange.view() for exchange in self._exchanges]
            self.publish(columns=[shown(view) for view in self._views], busy=not over)
            return None if over else pause_for(self._views)


def compare(endpoints: Sequence[Endpoint], prompt: str, **options: Any) -> ComparePanel:
    """Show a comparison, ask, and wait for the answers. Assign the result: the panel has been shown already."""
    panel = ComparePanel(endpoints, prompt, **options)
    display(panel)
    panel.ask()
    return panel
