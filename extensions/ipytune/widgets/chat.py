"""The chat panel: ask an endpoint, watch it write, see how quick it is, cancel it.

    panel = ChatPanel([server.base, server.tuned])
    panel                        # shows it
    answer = panel.ask("...")    # the same from code: waits, and the panel shows it

A key may be typed into the panel. It goes straight into this object's memory; it is in no trait, so neither in the
saved notebook nor in the widget's state, and the field is emptied at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import traitlets
from pydantic import SecretStr

from ipytune.endpoints import background
from ipytune.endpoints.client import Answer, Message
from ipytune.endpoints.errors import BadRequest, EndpointError, ModelNotFound
from ipytune.endpoints.exchange import Exchange, State, View
from ipytune.endpoints.records import Endpoint, described
from ipytune.widgets import picture
from ipytune.widgets.answers import key_words, pause_for, shown, static_answer, text_line
from ipytune.widgets.shown import Panel, script

_KEPT = 100  # turns in the panel's state; older ones stay in nobody's way


class ChatPanel(Panel):
    """See the module.

    endpoints: one, or several to choose from.   remember: send the earlier turns along, as a conversation.
    system: a system message before every conversation.   options: fields of every request (max_tokens, temperature).
    """

    _esm = script("answers.js", "chat.js")

    endpoints: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    remember = traitlets.Bool(True).tag(sync=True)
    turns: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    live = traitlets.Dict().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        endpoints: Endpoint | Sequence[Endpoint] = (),
        *,
        remember: bool = True,
        system: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(remember=remember)
        self._lock = threading.RLock()
        self._endpoints = [endpoints] if isinstance(endpoints, Endpoint) else list(endpoints)
        self._keys: dict[int, SecretStr] = {}
        self._system = system
        self._options = options
        self._exchange: Exchange | None = None
        self._prompt = ""
        self._views: list[tuple[str, View]] = []
        self._show_endpoints()

    def send(self, prompt: str, endpoint: int | None = None) -> None:
        """Ask the chosen endpoint, or the one with this number; returns at once. Raises ValueError when busy."""
        self._begin(prompt, endpoint)
        self.watch(self._look)

    def ask(self, prompt: str, endpoint: int | None = None, timeout: float | None = None) -> Answer:
        """As `send`, then wait for the whole answer. Raises EndpointError as `ipytune.endpoints.chat` does."""
        exchange = self._begin(prompt, endpoint)
        with self.watched_here():
            self._finish(exchange, timeout)
        return exchange.wait(0)

    def cancel(self) -> None:
        """Stop the answer that is being written."""
        if self._exchange is not None:
            self._exchange.cancel()

    def clear(self) -> None:
        """Forget the conversation."""
        with self._lock:
            self._views.clear()
            self.publish(turns=[], problem={})

    def set_key(self, key: str | SecretStr, endpoint: int | None = None) -> None:
        """Use this key for the chosen endpoint as long as the panel lives. An empty one removes it."""
        index = self.chosen if endpoint is None else endpoint
        value = key.get_secret_value() if isinstance(key, SecretStr) else key
        if value.strip():
            self._keys[index] = SecretStr(value.strip())
        else:
            self._keys.pop(index, None)
        self._show_endpoints()

    def add(self, endpoint: Endpoint, key: SecretStr | None = None) -> None:
        """Add an endpoint and choose it. One without a model's name gets it from the server, if it has just one.

        Raises EndpointError when the server cannot be asked, ModelNotFound when it has several models or none.
        """
        if not endpoint.model:
            names = background.models(endpoint, key=key)
            if len(names) != 1:
                listed = ", ".join(names) if names else "none"
                raise ModelNotFound(
                    "Which model?", f"{endpoint.base_url} lists: {listed}.", "Type one of these names.", names
                )
            endpoint = endpoint.model_copy(update={"model": names[0], "name": endpoint.name or names[0]})
        with self._lock:
            self._endpoints.append(endpoint)
            index = len(self._endpoints) - 1
            if key is not None:
                self._keys[index] = key
            self._show_endpoints()
            self.publish(chosen=index, problem={})

    def actions(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {
            "send": lambda message: self.send(str(message.get("prompt", ""))),
            "cancel": lambda _: self.cancel(),
            "clear": lambda _: self.clear(),
            "key": lambda message: self.set_key(str(message.get("value", ""))),
            "add": self._add_typed,
        }

    def static_html(self) -> str:
        rows = [
            f'<div style="margin-top:8px">{picture.prompt(prompt)}{picture.columns([static_answer(view)])}</div>'
            for prompt, view in self._views
        ]
        return picture.frame("Chat", ", ".join(item["name"] for item in self.endpoints) or "no endpoint", *rows)

    def static_text(self) -> str:
        lines = [f"> {prompt}\n{text_line(view)}" for prompt, view in self._views]
        return "\n".join([f"ChatPanel({', '.join(item['name'] for item in self.endpoints)})", *lines])

    def _begin(self, prompt: str, index: int | None) -> Exchange:
        with self._lock:
            if self._exchange is not None and not self._exchange.done:
                raise BadRequest("An answer is still being written.", "", "Wait for it, or cancel it.")
            if not prompt.strip():
                raise BadRequest("There is nothing to send.", "The prompt is empty.", "Type a question.")
            index = self.chosen if index is None else index
            if not 0 <= index < len(self._endpoints):
                raise BadRequest("There is no endpoint to ask.", "", "Add one: its URL and the model's name.")
            self.problem = {}
            self._prompt = prompt
            endpoint = self._endpoints[index]
            self._exchange = Exchange(endpoint, self._messages(prompt), key=self._keys.get(index), **self._options)
            self.publish(chosen=index, busy=True, live={"prompt": prompt, **shown(self._exchange.view())})
            return self._exchange

    def _messages(self, prompt: str) -> list[Message]:
        messages: list[Message] = [{"role": "system", "content": self._system}] if self._system else []
        if self.remember:
            for earlier, view in self._views:
                if view.state is State.DONE:  # a broken answer would teach the model to break off
                    messages += [{"role": "user", "content": earlier}, {"role": "assistant", "content": view.text}]
        return [*messages, {"role": "user", "content": prompt}]

    def _look(self) -> float | None:
        """Show how far the answer is; seconds until the next look, None when it has ended."""
        with self._lock:
            exchange = self._exchange
            if exchange is None:
                return None
            over = exchange.done
            view = exchange.view()
            if not over:
                self.publish(live={"prompt": self._prompt, **shown(view)})
                return pause_for([view])
            self._exchange = None
            self._views = [*self._views, (self._prompt, view)][-_KEPT:]
            turns = [{"prompt": prompt, **shown(past)} for prompt, past in self._views]
            self.publish(turns=turns, live={}, busy=False)
            return None

    def _finish(self, exchange: Exchange, timeout: float | None) -> None:
        try:
            wait_all([exchange], self._look, timeout)
        except TimeoutError:
            exchange.cancel()
            raise

    def _show_endpoints(self) -> None:
        self.endpoints = [
            {
                "name": endpoint.name,
                "model": endpoint.model,
                "url": endpoint.base_url,
                "key": key_words(endpoint, index in self._keys),
            }
            for index, endpoint in enumerate(self._endpoints)
        ]

    def _add_typed(self, message: dict[str, Any]) -> None:
        typed = str(message.get("key", "")).strip()
        model = str(message.get("model", "")).strip()
        endpoint = described(
            name=model,
            base_url=str(message.get("url", "")).strip(),
            model=model,
            key_env=str(message.get("key_env", "")).strip() or None,
        )
        # Asking the server for its models may take seconds; the thread that brings messages must stay free.
        threading.Thread(target=self._add, args=(endpoint, SecretStr(typed) if typed else None), daemon=True).start()

    def _add(self, endpoint: Endpoint, key: SecretStr | None) -> None:
        try:
            self.add(endpoint, key)
        except EndpointError as error:
            self.fail(error)


def wait_all(exchanges: Sequence[Exchange], look: Callable[[], float | None], timeout: float | None) -> None:
    """Look until nothing goes on any more. An interrupt or the timeout leaves through its exception; the first cancels
    what is being written."""
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        while (pause := look()) is not None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"No whole answer within {timeout:g} s.")
            time.sleep(pause)
    except KeyboardInterrupt:
        for exchange in exchanges:
            exchange.cancel()
        look()
        raise
