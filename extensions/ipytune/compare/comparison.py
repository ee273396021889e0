"""Two to four endpoints asked the same at once, blind or not: conversations, votes, what they add up to.

The controller under the comparison panel and `ipytune compare`. It knows no widget; every method may be called from any
thread. What may be shown while the names are hidden comes from `seen` alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ipytune.compare.ballot import Tally, Vote, tally
from ipytune.compare.blind import LABELS, Lots, Sitting, seen, unnamed
from ipytune.compare.dialogue import Asked, Dialogue, Round, Terms, follow
from ipytune.compare.parameters import Parameters, repeat_of
from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.exchange import View
from ipytune.endpoints.records import Endpoint

_GLANCE = 0.05  # seconds between two looks of who waits in code


class Comparison:
    """See the module.

    endpoints: two to four; a word is one of the catalogue, or a URL.   system: a message before every conversation.
    keys: by the endpoint's name, for those that name none.   remember: a prompt continues the conversation before it.
    blind: the columns are shuffled and nameless until a vote, or `reveal`. blind_seed: the same order again.
    repeat: answers a column, one after another.   options: fields of every request; the same for all columns, else the
    comparison means nothing.

    Raises BadRequest for a wrong option, ValueError for another number of endpoints.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint | str],
        *,
        system: str | None = None,
        keys: Mapping[str, SecretStr] | None = None,
        remember: bool = True,
        blind: bool = False,
        blind_seed: int | None = None,
        repeat: int = 1,
        **options: Any,
    ) -> None:
        if not 2 <= len(endpoints) <= len(LABELS):
            raise ValueError(f"A comparison takes two to four endpoints, not {len(endpoints)}.")
        self.endpoints = tuple(found(item) for item in endpoints)
        self.parameters = Parameters.of(**options)
        self.system = system or ""
        self.remember = remember
        self.repeat = repeat_of(repeat)
        self._lock = threading.RLock()
        self._dialogue = Dialogue()
        self._keys = dict(keys or {})
        self._blind = blind
        self._lots = Lots(blind_seed)
        self._sittings: dict[int, Sitting] = {}
        self._votes: dict[int, Vote] = {}
        self._fresh = False

    # --- asking ------------------------------------------------------------------------------------------------------

    def begin(self, prompt: str) -> Round:
        """Ask all at once; returns at once. After a blind conversation whose names were shown, a new one begins."""
        with self._lock:
            last = self.rounds[-1] if self.rounds else None
            told = self._blind and last is not None and self.sitting(last).revealed
            fresh = last is None or self._fresh or told or not self.remember
            started = self._dialogue.begin(prompt, self._asked(), self._terms(), fresh=fresh)
            self._seat(started, last)
            self._fresh = False
            return started

    def edit(self, number: int, prompt: str | None = None) -> Round:
        """Ask the round with this number anew, with other words or the same. It and those after it are replaced by the
        new one; `undo` brings them back. Returns at once."""
        with self._lock:
            place = self._dialogue.place(number)
            old = self.rounds[place]
            words = old.prompt if prompt is None else prompt
            fresh = old.fresh or not self.remember
            before = self.rounds[place - 1] if place else None
            started = self._dialogue.begin(words, self._asked(), self._terms(), keep=place, fresh=fresh)
            self._seat(started, before)
            return started

    def ask(self, prompt: str, timeout: float | None = None) -> Round:
        """As `begin`, then wait for all answers. An interrupt, or the timeout, cancels them and is raised."""
        self.begin(prompt)
        follow(lambda: _GLANCE if self.look() is not None and self.busy else None, self.cancel, timeout)
        return self.rounds[-1]

    def look(self) -> Round | None:
        """The round being answered, as far as it is; None when nothing goes on. To be called again and again."""
        with self._lock:  # a round is not seen before it has its sitting: it would be seen with its names
            return self._dialogue.look()

    def cancel(self) -> None:
        """Stop all answers that are being written."""
        self._dialogue.cancel()

    def new_conversation(self) -> None:
        """The next prompt stands alone; the rounds so far stay to be seen. In a blind comparison the columns are
        shuffled anew."""
        self._fresh = True

    def undo(self) -> None:
        """Bring back what the last edit replaced, or what was cleared."""
        self._dialogue.undo()

    def redo(self) -> None:
        """Take the last `undo` back."""
        self._dialogue.redo()

    def clear(self) -> None:
        """Forget all rounds. Votes stay."""
        self._dialogue.clear()

    def set_key(self, name: str, key: SecretStr | None) -> None:
        """Use this key for the endpoint with this name as long as the comparison lives; None removes it."""
        with self._lock:
            if name not in [endpoint.name for endpoint in self.endpoints]:
                raise BadRequest("There is no endpoint of this name here.", "", "Choose one of the list.")
            self._keys = {other: value for other, value in self._keys.items() if other != name}
            if key is not None:
                self._keys[name] = key

    # --- what there is -----------------------------------------------------------------------------------------------

    @property
    def rounds(self) -> tuple[Round, ...]:
        return self._dialogue.rounds

    @property
    def busy(self) -> bool:
        return self._dialogue.busy

    @property
    def undoable(self) -> bool:
        return self._dialogue.undoable

    @property
    def redoable(self) -> bool:
        return self._dialogue.redoable

    @property
    def keyed(self) -> frozenset[str]:
        """The names of the endpoints for which a key was given here."""
        return frozenset(self._keys)

    def seen(self, round_: Round) -> tuple[tuple[View, ...], ...]:
        """The columns of a round as they may be shown: in their order, and nameless while the names are hidden."""
        return seen(round_.takes, self.sitting(round_))

    def sitting(self, round_: Round) -> Sitting:
        with self._lock:
            return self._sittings[round_.number]

    def vote_of(self, round_: Round) -> Vote | None:
        return self._votes.get(round_.number)

    def shown_vote(self, round_: Round) -> str:
        """The vote as `vote` takes it: a letter, "tie", "bad", or "" for none."""
        vote = self.vote_of(round_)
        if vote is None:
            return ""
        return LABELS[self.sitting(round_).order.index(vote.choice)] if isinstance(vote.choice, int) else vote.choice

    def names(self, round_: Round | None = None) -> tuple[str, ...]:
        """The columns' names as they may be shown: of this round, or in a blind comparison's next one, of nobody."""
        if round_ is None:
            return tuple(LABELS[: len(self.endpoints)]) if self._blind else tuple(e.name for e in self.endpoints)
        sitting = self.sitting(round_)
        shown = [self.endpoints[column] for column in sitting.order]
        return tuple(
            endpoint.name if sitting.revealed else unnamed(label).name
            for label, endpoint in zip(LABELS, shown)  # noqa: B905  (more labels than columns)
        )

    # --- blind, and votes --------------------------------------------------------------------------------------------

    @property
    def blind(self) -> bool:
        return self._blind

    @blind.setter
    def blind(self, blind: bool) -> None:
        """On: from a new conversation on. Off: the names are shown."""
        with self._lock:
            if not blind and self._blind:
                self.reveal()
            if blind and not self._blind:
                self._fresh = True
            self._blind = blind

    def vote(self, choice: str, number: int | None = None) -> None:
        """Say which answer of the last round, or of another, is the best: its letter, counted as they are shown (A is
        the first), its name where names are shown, "tie", or "bad" for none. It shows the names. Raises BadRequest.
        """
        with self._lock:
            if self.busy:
                raise BadRequest("Answers are still being written.", "", "Vote once they are there.")
            if not self.rounds:
                raise BadRequest("There is nothing to vote on.", "Nothing was asked yet.", "Ask first.")
            chosen = self.rounds[-1] if number is None else self.rounds[self._dialogue.place(number)]
            sitting = self.sitting(chosen)
            before = self.vote_of(chosen)
            if before is not None and before.blind:
                raise BadRequest(
                    "This vote was given blind, and the names have been seen since.", "", "Ask anew to vote anew."
                )
            self._votes[chosen.number] = Vote(self._choice(choice, chosen), blind=not sitting.revealed)
            sitting.revealed = True

    def reveal(self) -> None:
        """Show the names of all rounds so far."""
        with self._lock:
            for sitting in self._sittings.values():
                sitting.revealed = True

    def tally(self) -> Tally:
        """What the votes add up to; those on rounds that were replaced since, too: they were judged all the same."""
        return tally(list(self._votes.values()), labelled(self.endpoints))

    # --- taking it away ----------------------------------------------------------------------------------------------

    def to_json(self, path: Path | str) -> Path:
        """Write everything as JSON; the path that was written: another one where there is a file already."""
        from ipytune.compare import export

        return export.write(path, export.as_json(self))

    def to_html(self, path: Path | str) -> Path:
        """As `to_json`, as a page that needs nothing else."""
        from ipytune.compare import export, page

        return export.write(path, page.as_html(self))

    def to_cell(self) -> str:
        """Python that asks the same of the same endpoints. Keys by name only; values as literals."""
        from ipytune.compare import cell

        return cell.as_cell(self)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _asked(self) -> list[Asked]:
        return [Asked(endpoint, self._keys.get(endpoint.name)) for endpoint in self.endpoints]

    def _terms(self) -> Terms:
        return Terms(self.system, self.parameters.options(), self.repeat)

    def _seat(self, started: Round, before: Round | None) -> None:
        """A conversation keeps its order; a new one draws."""
        if started.fresh or before is None:
            self._sittings[started.number] = self._lots.sitting(len(self.endpoints), self._blind)
        else:
            self._sittings[started.number] = self.sitting(before)

    def _choice(self, choice: str, round_: Round) -> Any:
        if choice in ("tie", "bad"):
            return choice
        sitting, names = self.sitting(round_), self.names(round_)
        letters = LABELS[: len(self.endpoints)]
        if choice in names and names.count(choice) == 1:
            return sitting.order[names.index(choice)]
        if len(choice) == 1 and choice.upper() in letters:
            return sitting.order[letters.index(choice.upper())]
        raise BadRequest(
            "This is no vote.", f"It can be {', '.join(letters)}, tie or bad.", "A is the answer shown first."
        )


def found(item: Endpoint | str) -> Endpoint:
    """An endpoint; a word is looked up in the catalogue, or asked at its URL. Raises EndpointError."""
    if isinstance(item, Endpoint):
        return item
    from ipytune.endpoints.naming import from_words  # needed for words only, and may ask a server

    return from_words(item)


def labelled(endpoints: Sequence[Endpoint]) -> list[str]:
    """The names; where two are the same, with the model or a number, so that each is told from the others."""
    names = [endpoint.name for endpoint in endpoints]
    if len(set(names)) < len(names):
        names = [f"{e.name} · {e.model}" if names.count(e.name) > 1 else e.name for e in endpoints]
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]
