"""A conversation held with one endpoint or with several at once, turn after turn: the controller under both panels.

Every column remembers its own answers: what model A said is never put into model B's mouth. A turn can be asked anew
with other words; the turns after it are then gone, and `undo` brings them back. Nothing here knows a widget; every
method may be called from any thread. Whoever shows it calls `look` again and again until it returns None.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import SecretStr

from ipytune.endpoints.answer import Answer
from ipytune.endpoints.client import Message
from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.exchange import Cancelled, Exchange, State, View
from ipytune.endpoints.records import Endpoint

_UNDONE = 20  # states of the conversation that `undo` can bring back


@dataclass(frozen=True)
class Asked:
    """Who is asked, and with which key where the record names none."""

    endpoint: Endpoint
    key: SecretStr | None = None


@dataclass(frozen=True)
class Terms:
    """What every column of one round is asked with. options: fields of the request.   repeat: answers a column."""

    system: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    repeat: int = 1


@dataclass(frozen=True)
class Round:
    """One prompt and what each column answered to it: its takes, one unless more were asked for.

    number: counts what was asked; never given twice.   fresh: it begins a conversation, so nothing earlier was sent
    along.   over: nothing of it is being written.
    """

    number: int
    prompt: str
    takes: tuple[tuple[View, ...], ...]
    terms: Terms = field(default_factory=Terms)
    fresh: bool = True
    over: bool = True

    def spoken(self, column: int) -> View | None:
        """The answer with which this column's conversation goes on: its first whole one."""
        if column >= len(self.takes):
            return None
        whole = (take for take in self.takes[column] if take.state is State.DONE and take.text)
        return next(whole, None)


class Dialogue:
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._rounds: tuple[Round, ...] = ()
        self._before: list[tuple[Round, ...]] = []
        self._undone: list[tuple[Round, ...]] = []
        self._asking: _Asking | None = None
        self._count = 0

    @property
    def rounds(self) -> tuple[Round, ...]:
        """Those that are over, the earliest first."""
        with self._lock:
            return self._rounds

    @property
    def busy(self) -> bool:
        with self._lock:
            return self._asking is not None

    @property
    def undoable(self) -> bool:
        with self._lock:
            return bool(self._before) and self._asking is None

    @property
    def redoable(self) -> bool:
        with self._lock:
            return bool(self._undone) and self._asking is None

    def begin(
        self,
        prompt: str,
        asked: Sequence[Asked],
        terms: Terms,
        *,
        keep: int | None = None,
        fresh: bool = False,
    ) -> Round:
        """Ask all of them at once; returns the round as it begins.

        keep: how many of the rounds stay before this one; None keeps all. Those after are what `undo` brings back.
        fresh: send nothing earlier along. Raises BadRequest.
        """
        with self._lock:
            self._must_be_idle()
            if not prompt.strip():
                raise BadRequest("There is nothing to send.", "The prompt is empty.", "Type a question.")
            if not asked:
                raise BadRequest("There is no endpoint to ask.", "", "Add one: its URL and the model's name.")
            kept = self._rounds if keep is None else self._rounds[:keep]
            fresh = fresh or not kept
            earlier = () if fresh else conversation(kept)
            self._count += 1
            self._asking = _Asking(
                Round(self._count, prompt, (), terms, fresh),
                asked,
                [messages(earlier, column, prompt, terms.system) for column in range(len(asked))],
            )
            self._undone = []
            if kept != self._rounds:
                self._remember()
                self._rounds = kept
            return self._asking.look()

    def place(self, number: int) -> int:
        """Where among `rounds` the one with this number is. Raises BadRequest."""
        for place, item in enumerate(self.rounds):
            if item.number == number:
                return place
        raise BadRequest("This turn is no more.", "It was replaced by another.", "Undo brings it back.")

    def undo(self) -> None:
        """Bring back the rounds as they were before the last edit, or before `clear`; what was asked since goes, and
        `redo` brings it back. Raises BadRequest."""
        with self._lock:
            self._must_be_idle()
            if not self._before:
                raise BadRequest("There is nothing to undo.", "No round was replaced.")
            self._undone.append(self._rounds)
            self._rounds = self._before.pop()

    def redo(self) -> None:
        """Take the last `undo` back. Raises BadRequest."""
        with self._lock:
            self._must_be_idle()
            if not self._undone:
                raise BadRequest("There is nothing to do again.", "Nothing was undone, or something was asked since.")
            self._before.append(self._rounds)
            self._rounds = self._undone.pop()

    def clear(self) -> None:
        """Forget all rounds; `undo` brings them back."""
        with self._lock:
            self._must_be_idle()
            if self._rounds:
                self._undone = []
                self._remember()
                self._rounds = ()

    def cancel(self) -> None:
        """Stop what is being written, and ask nothing more of this round."""
        with self._lock:
            if self._asking is not None:
                self._asking.cancel()

    def look(self) -> Round | None:
        """The round that is being answered, as far as it is; once it is over it joins `rounds`. None: nothing goes on.

        The next of several answers of a column is asked for from here.
        """
        with self._lock:
            if self._asking is None:
                return None
            seen = self._asking.look()
            if seen.over:
                self._asking = None
                self._rounds = (*self._rounds, seen)
            return seen

    def _remember(self) -> None:
        self._before = [*self._before, self._rounds][-_UNDONE:]

    def _must_be_idle(self) -> None:
        if self._asking is not None:
            raise BadRequest("An answer is still being written.", "", "Wait for it, or cancel it.")


class _Asking:
    """A round that is being answered: a column's answers one after another, the columns beside one another."""

    def __init__(self, round_: Round, asked: Sequence[Asked], said: Sequence[Sequence[Message]]) -> None:
        self._round = round_
        self._asked = asked
        self._said = said
        self._cancelled = False
        self._columns: list[list[Exchange]] = [[self._ask(column)] for column in range(len(asked))]

    def cancel(self) -> None:
        self._cancelled = True
        for exchanges in self._columns:
            exchanges[-1].cancel()

    def look(self) -> Round:
        takes = tuple(tuple(exchange.view() for exchange in exchanges) for exchanges in self._columns)
        ended = [self._go_on(column, row[-1].state) for column, row in enumerate(takes)]
        return replace(self._round, takes=takes, over=all(ended))

    def _go_on(self, column: int, state: State) -> bool:
        """Ask for this column's next answer, if it is due. True when the column has all it will get."""
        if not state.final:
            return False
        # Who fails once with this request would most likely fail again; and each may cost.
        if self._cancelled or state is not State.DONE or len(self._columns[column]) >= self._round.terms.repeat:
            return True
        self._columns[column].append(self._ask(column))
        return False

    def _ask(self, column: int) -> Exchange:
        asked = self._asked[column]
        return Exchange(asked.endpoint, self._said[column], key=asked.key, **self._round.terms.options)


def conversation(rounds: Sequence[Round]) -> tuple[Round, ...]:
    """Those of the rounds that belong to the last conversation."""
    begins = max((place for place, item in enumerate(rounds) if item.fresh), default=0)
    return tuple(rounds[begins:])


def messages(earlier: Sequence[Round], column: int, prompt: str, system: str) -> list[Message]:
    """OpenAI messages for one column. A broken answer is left out, with its question: it would teach to break off."""
    said: list[Message] = [{"role": "system", "content": system}] if system else []
    for item in earlier:
        take = item.spoken(column)
        if take is not None:
            said += [{"role": "user", "content": item.prompt}, {"role": "assistant", "content": take.text}]
    return [*said, {"role": "user", "content": prompt}]


def follow(look: Callable[[], float | None], cancel: Callable[[], None], timeout: float | None) -> None:
    """Call `look` until it returns None, pausing the seconds that it returns.

    An interrupt, and the timeout (TimeoutError), cancel what is being written, look a last time, and go on up.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        while (pause := look()) is not None:
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"No whole answer within {timeout:g} s.")
            time.sleep(min(pause, left))
    except (KeyboardInterrupt, TimeoutError):
        cancel()
        while (pause := look()) is not None:
            time.sleep(pause)
        raise


def answer_of(view: View) -> Answer:
    """The whole answer that a view shows. Raises its EndpointError, or Cancelled."""
    if view.error is not None:
        raise view.error
    if view.state is not State.DONE:
        raise Cancelled(f"The answer of “{view.endpoint.name}” was cancelled.", "", "Ask again.")
    return Answer(
        endpoint=view.endpoint,
        text=view.text,
        reasoning=view.reasoning,
        finish_reason=view.finish_reason,
        metrics=view.metrics,
        tool_calls=view.tool_calls,
        logprobs=view.logprobs,
    )
