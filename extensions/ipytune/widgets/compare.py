"""Answers side by side: one prompt, two to four endpoints, each streaming into its own column with its own clock.

    panel = compare([server.base, server.tuned], "two nodes, four GPUs each, three hours")
    panel = ComparePanel(["base", "tuned"], blind=True, temperature=0.7)      # names of the catalogue

A view over `ipytune.compare.Comparison`, which does the work. In a blind comparison no trait tells which column is
whose, until a vote or `reveal`: the panel knows columns only as the comparison lets them be seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import traitlets
from IPython.display import display
from pydantic import SecretStr

from ipytune.compare.ballot import Tally, sentences
from ipytune.compare.comparison import Comparison
from ipytune.compare.dialogue import Round, follow
from ipytune.compare.export import write
from ipytune.compare.parameters import FIELDS, as_text, repeat_of
from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.exchange import View
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.untrusted import visible
from ipytune.widgets import compare_views as views
from ipytune.widgets.answers import Growth, joined, listed
from ipytune.widgets.shown import Panel, script

_SHOWN = 100  # rounds in the panel's state


class ComparePanel(Panel):
    """See the module.

    endpoints: two to four.   prompt: shown in the field, not sent yet.   options: as of `Comparison`: system, keys,
    remember, blind, blind_seed, repeat, and fields of every request.
    """

    _esm = script("answers.js", "compare.js")

    prompt = traitlets.Unicode("").tag(sync=True)
    endpoints: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    columns: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    grown: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)  # the round in the columns: number, prompt, fresh, vote
    rounds: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)  # those before it
    busy = traitlets.Bool(False).tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    parameters: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    system = traitlets.Unicode("").tag(sync=True)
    repeat = traitlets.Dict().tag(sync=True)  # value, error
    remember = traitlets.Bool(True).tag(sync=True)
    blind = traitlets.Bool(False).tag(sync=True)
    hidden = traitlets.Bool(False).tag(sync=True)
    choices: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    tally: traitlets.List[str] = traitlets.List().tag(sync=True)
    differences: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    undoable = traitlets.Bool(False).tag(sync=True)
    redoable = traitlets.Bool(False).tag(sync=True)
    exported = traitlets.Dict().tag(sync=True)

    def __init__(self, endpoints: Sequence[Endpoint | str], prompt: str = "", **options: Any) -> None:
        self._comparison: Comparison | None = None  # a panel that fails to come about is closed, too
        self._comparison = made = Comparison(endpoints, **options)
        super().__init__(
            prompt=prompt,
            system=made.system,
            remember=made.remember,
            blind=made.blind,
            repeat={"value": str(made.repeat), "error": ""},
            parameters=made.parameters.shown(),
        )
        self._lock = threading.RLock()
        self._growth = Growth()
        self._live: Round | None = None
        self._show_endpoints()
        self._show_all()
        self.observe(self._switched, names=["remember", "blind"])

    # --- what buttons and code do ------------------------------------------------------------------------------------

    @property
    def comparison(self) -> Comparison:
        """The controller: its rounds, votes and exports."""
        assert self._comparison is not None
        return self._comparison

    def send(self, prompt: str | None = None) -> None:
        """Ask all endpoints at once, with the prompt in the field unless another is given. Returns at once."""
        self._ask_all(prompt)
        self.watch(self._look)

    def ask(self, prompt: str | None = None, timeout: float | None = None) -> tuple[View, ...]:
        """As `send`, then wait: a view of each answer, in the order of the endpoints; a failed one holds its error.

        In a blind comparison the views are in the order of the columns, and nameless. Of several answers a column the
        first; `panel.comparison.rounds` has all. An interrupt, or the timeout, cancels them and is raised.
        """
        self._ask_all(prompt)
        return self._wait(timeout)

    def edit(self, number: int, prompt: str | None = None, timeout: float | None = None) -> tuple[View, ...]:
        """Ask the round with this number (`asked["number"]`, `rounds[i]["number"]`) anew, with other words or the same,
        and wait. It and those after it are replaced; `undo` brings them back."""
        self._begin(lambda: self.comparison.edit(number, prompt))
        return self._wait(timeout)

    def cancel(self) -> None:
        """Stop all answers that are being written."""
        if self._comparison is not None:
            self._comparison.cancel()

    def new_conversation(self) -> None:
        """The next prompt stands alone; the rounds so far stay to be seen."""
        self.comparison.new_conversation()
        self.note = "The next prompt begins a new conversation."

    def undo(self) -> None:
        """Bring back what the last edit replaced, or what was cleared."""
        self.comparison.undo()
        self._show_all()

    def redo(self) -> None:
        """Take the last `undo` back."""
        self.comparison.redo()
        self._show_all()

    def clear(self) -> None:
        """Forget all rounds; `undo` brings them back."""
        self.comparison.clear()
        self._show_all()

    def vote(self, choice: str) -> Tally:
        """Say which answer is the best: its letter (A is the first shown), its name where names are shown, "tie", or
        "bad" for none. It shows the names. What all votes add up to is returned. Raises BadRequest."""
        self.comparison.vote(choice)
        self._show_all()
        return self.comparison.tally()

    def reveal(self) -> None:
        """Show the names without a vote."""
        self.comparison.reveal()
        self._show_all()

    def set(self, name: str, value: Any) -> None:
        """Change what the next rounds ask for: `panel.set("temperature", 0.2)`; None leaves it to the server.

        "system" is the message before a conversation, "repeat" how many answers a column gets. Raises BadRequest for a
        wrong value, which is shown at its field.
        """
        self._set(name, value)
        if name in self.comparison.parameters.errors:
            self.comparison.parameters.options()
        if name == "repeat":
            repeat_of(value)

    def set_key(self, key: str | SecretStr, endpoint: str) -> None:
        """Use this key for the endpoint with this name as long as the panel lives. An empty one removes it."""
        value = key.get_secret_value() if isinstance(key, SecretStr) else key
        self.comparison.set_key(endpoint, SecretStr(value.strip()) if value.strip() else None)
        self._show_endpoints()

    def to_cell(self) -> str:
        """Python that asks the same of the same endpoints. Keys by name only; values as literals."""
        return self.comparison.to_cell()

    def to_json(self, path: Path | str = "comparison.json") -> Path:
        """Write everything as JSON; the path that was written: another one where there is a file already."""
        return self.comparison.to_json(path)

    def to_html(self, path: Path | str = "comparison.html") -> Path:
        """As `to_json`, as a page that needs nothing else."""
        return self.comparison.to_html(path)

    def close(self) -> None:
        self.cancel()
        super().close()

    def actions(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {
            "send": lambda message: self.send(str(message.get("prompt", ""))),
            "edit": self._edit_typed,
            "cancel": lambda _: self.cancel(),
            "new": lambda _: self.new_conversation(),
            "undo": lambda _: self.undo(),
            "redo": lambda _: self.redo(),
            "clear": lambda _: self.clear(),
            "vote": self._vote_typed,
            "reveal": lambda _: self.reveal(),
            "set": self._set_typed,
            "key": lambda message: self.set_key(str(message.get("value", "")), str(message.get("endpoint", ""))),
            "export": lambda message: self._export(str(message.get("format"))),
        }

    @property
    def written(self) -> list[str]:
        """The answers in the columns, as far as the panel shows them."""
        return [str(item["text"]) for item in joined(self.columns, self.grown)]

    def static_html(self) -> str:
        return views.static_html(self.comparison, self._newest, self._earlier, self.prompt)

    def static_text(self) -> str:
        return views.static_text(self.comparison, self._newest, self.prompt)

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _newest(self) -> Round | None:
        if self._live is not None:
            return self._live
        return self.comparison.rounds[-1] if self.comparison.rounds else None

    @property
    def _earlier(self) -> tuple[Round, ...]:
        rounds = self.comparison.rounds
        return rounds[-_SHOWN:] if self._live is not None else rounds[:-1][-_SHOWN:]

    def _ask_all(self, prompt: str | None) -> None:
        words = self.prompt if prompt is None else prompt
        self._begin(lambda: self.comparison.begin(words))
        self.prompt = words

    def _begin(self, start: Callable[[], Round]) -> None:
        with self._lock:
            if self.repeat["error"]:
                repeat_of(self.repeat["value"])
            self._live = started = start()
            self._growth = Growth()
            traits, _ = self._columns(started)
            note = views.note(self.comparison, started)
            self.publish(problem={}, busy=True, note=note, differences=[], **traits, **self._around())

    def _wait(self, timeout: float | None) -> tuple[View, ...]:
        with self.watched_here():
            follow(self._look, self.cancel, timeout)
        seen = self.comparison.seen(self.comparison.rounds[-1])
        return tuple(takes[0] for takes in seen)

    def _look(self) -> float | None:
        with self._lock:
            seen = self.comparison.look()
            if seen is None:
                return None
            self._live = None if seen.over else seen
            if not seen.over:
                traits, pause = self._columns(seen)
                self.publish(**traits)
                return pause
            self._show_all(busy=False)
            return None

    def _columns(self, item: Round, last: bool = False) -> tuple[dict[str, Any], float]:
        pictured, pause = self._growth.step(views.columns(self.comparison, item), last)
        whole = {"columns": pictured["whole"]} if "whole" in pictured else {}
        return {**whole, "grown": pictured["added"]}, pause

    def _show_all(self, **traits: Any) -> None:
        """Columns and all around them: after a round has ended, a vote, an undo."""
        with self._lock:
            newest = self._newest
            if newest is not None:
                columns, _ = self._columns(newest, last=newest.over)
                found = views.differences(self.comparison, newest) if newest.over else []
            else:
                columns, found = {"columns": views.empty_columns(self.comparison), "grown": []}, []
            self.publish(
                **columns,
                differences=[
                    {"title": title, "parts": [[part.kind, visible(part.text)] for part in parts]}
                    for title, parts in found
                ],
                problem={},
                **self._around(),
                **traits,
            )

    def _around(self) -> dict[str, Any]:
        """The traits around the columns."""
        made, newest = self.comparison, self._newest
        return {
            "asked": views.asked(made, newest) if newest is not None else {},
            "rounds": views.earlier_rounds(made, self._earlier),
            "hidden": newest is not None and not made.sitting(newest).revealed,
            "choices": views.ballot_paper(made, newest),
            "tally": [visible(words) for words in sentences(made.tally())],
            "undoable": made.undoable,
            "redoable": made.redoable,
        }

    def _show_endpoints(self) -> None:
        made = self.comparison
        self.endpoints = listed(made.endpoints, [endpoint.name in made.keyed for endpoint in made.endpoints])

    def _switched(self, change: Any) -> None:
        """A switch of the page, or a trait set by code."""
        with self._lock:
            self.comparison.remember = self.remember
            if self.comparison.blind != self.blind:
                self.comparison.blind = self.blind
                self._show_all()

    def _set(self, name: str, value: Any) -> None:
        with self._lock:
            made = self.comparison
            if name == "system":
                made.system = self.system = as_text(value)
            elif name == "repeat":
                typed = as_text(value)
                try:
                    made.repeat = repeat_of(value)
                    self.repeat = {"value": typed, "error": ""}
                except BadRequest as error:
                    self.repeat = {"value": typed, "error": error.why}
            else:
                made.parameters = made.parameters.changed(name, value)
                self.parameters = made.parameters.shown()

    def _set_typed(self, message: dict[str, Any]) -> None:
        name = str(message.get("name"))
        if name in FIELDS or name in ("system", "repeat"):  # others are set by code, not by a page
            self._set(name, str(message.get("value", "")))

    def _vote_typed(self, message: dict[str, Any]) -> None:
        self.vote(str(message.get("choice")))

    def _edit_typed(self, message: dict[str, Any]) -> None:
        typed = message.get("prompt")
        number = int(message.get("number", 0))
        self._begin(lambda: self.comparison.edit(number, None if typed is None else str(typed)))
        self.watch(self._look)

    def _export(self, form: str) -> None:
        """A button: writes beside the notebook, and says where."""
        if form == "cell":
            source = self.to_cell()
            self.exported = {"path": str(write("comparison.py", source)), "code": source}
        else:
            self.exported = {"path": str(self.to_html() if form == "html" else self.to_json()), "code": ""}


def compare(endpoints: Sequence[Endpoint | str], prompt: str, **options: Any) -> ComparePanel:
    """Show a comparison, ask, and wait for the answers. Assign the result: the panel has been shown already."""
    panel = ComparePanel(endpoints, prompt, **options)
    display(panel)
    panel.ask()
    return panel
