"""The chat panel: choose an endpoint, ask, watch the answer come, stop it, read how quick it was, ask once more.

    panel = ChatPanel([server.base, server.tuned])
    panel                        # shows it
    answer = panel.ask("...")    # the same from code: waits, and the panel shows it

A key may be typed into the panel. It goes straight into this object's memory; it is in no trait, so neither in the
saved notebook nor in the widget's state, and the field is emptied at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import traitlets
from pydantic import SecretStr

from ipytune.compare.comparison import found
from ipytune.compare.dialogue import Asked, Dialogue, Round, Terms, answer_of, follow
from ipytune.compare.parameters import FIELDS, Parameters, as_text
from ipytune.endpoints import background
from ipytune.endpoints.client import Answer
from ipytune.endpoints.errors import BadRequest, EndpointError, ModelNotFound
from ipytune.endpoints.records import Endpoint, described
from ipytune.widgets import picture
from ipytune.widgets.answers import Growth, bounded, joined, listed, shown, static_take, text_line
from ipytune.widgets.shown import Panel, script

_SHOWN = 100  # turns in the panel's state; older ones stay in nobody's way


class ChatPanel(Panel):
    """See the module.

    endpoints: one, or several to choose from; a word is one of the catalogue, or a URL.   remember: send the earlier
    turns along, as a conversation.   system: a system message before every conversation.   options: fields of every
    request (max_tokens, temperature, tools).
    """

    _esm = script("answers.js", "chat.js")

    endpoints: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    remember = traitlets.Bool(True).tag(sync=True)
    system = traitlets.Unicode("").tag(sync=True)
    parameters: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    turns: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    live = traitlets.Dict().tag(sync=True)
    grown: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    undoable = traitlets.Bool(False).tag(sync=True)
    redoable = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        endpoints: Endpoint | str | Sequence[Endpoint | str] = (),
        *,
        remember: bool = True,
        system: str | None = None,
        **options: Any,
    ) -> None:
        self._dialogue = Dialogue()  # first: a panel that fails to come about is closed, too
        self._asked_with = Parameters.of(**options)
        given = [endpoints] if isinstance(endpoints, (Endpoint, str)) else list(endpoints)
        self._endpoints = [found(item) for item in given]
        super().__init__(remember=remember, system=system or "", parameters=self._asked_with.shown())
        self._lock = threading.RLock()
        self._keys: dict[int, SecretStr] = {}
        self._growth = Growth()
        self._show_endpoints()

    def send(self, prompt: str, endpoint: int | None = None) -> None:
        """Ask the chosen endpoint, or the one with this number; returns at once. Raises EndpointError when busy."""
        self._begin(prompt, endpoint)
        self.watch(self._look)

    def ask(self, prompt: str, endpoint: int | None = None, timeout: float | None = None) -> Answer:
        """As `send`, then wait for the whole answer. Raises EndpointError as `ipytune.endpoints.chat` does."""
        self._begin(prompt, endpoint)
        return self._wait(timeout)

    def edit(self, turn: int, prompt: str | None = None, timeout: float | None = None) -> Answer:
        """Ask a turn anew, counted from 0 (-1 is the last), with other words or the same, and wait for the answer. The
        turns after it are gone; `undo` brings all of it back."""
        rounds = self._dialogue.rounds
        if not -len(rounds) <= turn < len(rounds):
            raise BadRequest("There is no such turn.", f"The conversation has {len(rounds)}.", "The first is 0.")
        self._begin_anew(rounds[turn].number, prompt)
        return self._wait(timeout)

    def cancel(self) -> None:
        """Stop the answer that is being written."""
        self._dialogue.cancel()

    def clear(self) -> None:
        """Forget the conversation; `undo` brings it back."""
        self._dialogue.clear()
        self._show_turns(problem={})

    def undo(self) -> None:
        """Bring back what the last edit replaced, or what was cleared."""
        self._dialogue.undo()
        self._show_turns(problem={})

    def redo(self) -> None:
        """Take the last `undo` back."""
        self._dialogue.redo()
        self._show_turns(problem={})

    def set(self, name: str, value: Any) -> None:
        """Change what the next requests ask for: `panel.set("temperature", 0.2)`; None leaves it to the server.

        "system" is the message before the conversation. Raises BadRequest for a wrong value, which is shown at its
        field.
        """
        self._set(name, value)
        if name in self._asked_with.errors:
            self._asked_with.options()

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
                words = ", ".join(names) if names else "none"
                raise ModelNotFound(
                    "Which model?", f"{endpoint.base_url} lists: {words}.", "Type one of these names.", names
                )
            endpoint = endpoint.model_copy(update={"model": names[0], "name": endpoint.name or names[0]})
        with self._lock:
            self._endpoints.append(endpoint)
            index = len(self._endpoints) - 1
            if key is not None:
                self._keys[index] = key
            self._show_endpoints()
            self.publish(chosen=index, problem={})

    def close(self) -> None:
        self.cancel()
        super().close()

    def actions(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {
            "send": lambda message: self.send(str(message.get("prompt", ""))),
            "edit": self._edit_typed,
            "cancel": lambda _: self.cancel(),
            "clear": lambda _: self.clear(),
            "undo": lambda _: self.undo(),
            "redo": lambda _: self.redo(),
            "set": self._set_typed,
            "key": lambda message: self.set_key(str(message.get("value", ""))),
            "add": self._add_typed,
        }

    @property
    def written(self) -> str:
        """The answer that is being written, as far as the panel shows it."""
        whole = [dict(self.live)] if self.live else []
        return "".join(str(item["text"]) for item in joined(whole, self.grown))

    def static_html(self) -> str:
        rows = [
            f'<div style="margin-top:8px">{picture.prompt(item.prompt)}'
            f"{picture.columns([static_take(item.takes[0])])}</div>"
            for item in self._dialogue.rounds
        ]
        return picture.frame("Chat", ", ".join(item["name"] for item in self.endpoints) or "no endpoint", *rows)

    def static_text(self) -> str:
        lines = [f"> {item.prompt}\n{text_line(item.takes[0][0])}" for item in self._dialogue.rounds]
        return "\n".join([f"ChatPanel({', '.join(item['name'] for item in self.endpoints)})", *lines])

    # --- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, prompt: str, index: int | None, keep: int | None = None, fresh: bool = False) -> None:
        with self._lock:
            index = self.chosen if index is None else index
            there = 0 <= index < len(self._endpoints)
            asked = [Asked(self._endpoints[index], self._keys.get(index))] if there else []
            terms = Terms(self.system, self._asked_with.options())
            started = self._dialogue.begin(prompt, asked, terms, keep=keep, fresh=fresh or not self.remember)
            self._growth = Growth()
            self.problem = {}
            if keep is not None:
                self._show_turns()
            self._show_live(started, chosen=index, busy=True, undoable=False, redoable=False)

    def _begin_anew(self, number: int, prompt: str | None) -> None:
        with self._lock:
            place = self._dialogue.place(number)
            old = self._dialogue.rounds[place]
            self._begin(old.prompt if prompt is None else prompt, None, keep=place, fresh=old.fresh)

    def _wait(self, timeout: float | None) -> Answer:
        with self.watched_here():
            follow(self._look, self.cancel, timeout)
        return answer_of(self._dialogue.rounds[-1].takes[0][0])

    def _look(self) -> float | None:
        """Show how far the answer is; seconds until the next look, None when it has ended."""
        with self._lock:
            seen = self._dialogue.look()
            if seen is None:
                return None
            if not seen.over:
                return self._show_live(seen)
            self._show_turns(live={}, grown=[], busy=False)
            return None

    def _show_live(self, seen: Round, **traits: Any) -> float:
        answer = {"prompt": seen.prompt, "number": seen.number, **shown(seen.takes[0])}
        pictured, pause = self._growth.step([answer])
        whole = {"live": pictured["whole"][0]} if "whole" in pictured else {}
        self.publish(**whole, grown=pictured["added"], **traits)
        return pause

    def _show_turns(self, **traits: Any) -> None:
        rounds = self._dialogue.rounds[-_SHOWN:]
        turns = [{"prompt": item.prompt, "number": item.number, **shown(item.takes[0])} for item in rounds]
        dialogue = self._dialogue
        self.publish(turns=bounded(turns), undoable=dialogue.undoable, redoable=dialogue.redoable, **traits)

    def _show_endpoints(self) -> None:
        typed = [index in self._keys for index in range(len(self._endpoints))]
        self.endpoints = listed(self._endpoints, typed)

    def _set(self, name: str, value: Any) -> None:
        with self._lock:
            if name == "system":
                self.system = as_text(value)
                return
            self._asked_with = self._asked_with.changed(name, value)
            self.parameters = self._asked_with.shown()

    def _set_typed(self, message: dict[str, Any]) -> None:
        name = str(message.get("name"))
        if name in FIELDS or name == "system":  # others are set by code, not by a page
            self._set(name, str(message.get("value", "")))

    def _edit_typed(self, message: dict[str, Any]) -> None:
        typed = message.get("prompt")
        self._begin_anew(int(message.get("number", 0)), None if typed is None else str(typed))
        self.watch(self._look)

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
