"""How far an evaluation is: counts, cost in tokens, and when it will have ended. Plain numbers, at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field

from ipytune.evaluate.ledger import Problem, Record


@dataclass(frozen=True)
class ColumnProgress:
    """One endpoint. asked: answered now; known: taken from the ledger or the cache; failed: rows without answer.

    problem: why nothing more is sent to it.   Tokens are those of answers that were asked now, as the server counted.
    """

    endpoint: str
    total: int
    asked: int = 0
    known: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    tokens_estimated: bool = False
    unscored: int = 0
    problem: Problem | None = None

    @property
    def done(self) -> int:
        return self.asked + self.known + self.failed

    @property
    def over(self) -> bool:
        return self.problem is not None or self.done >= self.total


@dataclass(frozen=True)
class Progress:
    """phase: reading, asking, judging, stopping, completed, stopped or failed.   seconds: since the start."""

    phase: str
    columns: tuple[ColumnProgress, ...]
    seconds: float
    judged: int = 0
    judge_tokens: int = 0

    @property
    def total(self) -> int:
        """Answers that are still to be had, and those that are there: of a dead endpoint only what it gave."""
        return sum(column.done if column.problem else column.total for column in self.columns)

    @property
    def done(self) -> int:
        return sum(column.done for column in self.columns)

    @property
    def failed(self) -> int:
        return sum(column.failed for column in self.columns)

    @property
    def prompt_tokens(self) -> int:
        return sum(column.prompt_tokens for column in self.columns)

    @property
    def output_tokens(self) -> int:
        return sum(column.output_tokens for column in self.columns)

    @property
    def remaining_seconds(self) -> float | None:
        """Of the slowest endpoint, at its rate so far; None before any answer came, 0 when all is done."""
        left = [column for column in self.columns if not column.over]
        if not left:
            return 0.0
        if self.seconds <= 0 or any(column.asked + column.failed == 0 for column in left):
            return None
        return max((column.total - column.done) * self.seconds / (column.asked + column.failed) for column in left)


@dataclass
class Counter:
    """Counts one endpoint's answers while they come; `view` is a moment of it. Written by one thread."""

    endpoint: str
    total: int
    asked: int = 0
    known: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    tokens_estimated: bool = False
    unscored: int = 0
    problem: Problem | None = field(default=None)

    def count(self, record: Record, now: bool) -> None:
        """now: whether it was asked now, and so paid now."""
        if record.problem is not None:
            self.failed += 1
            return
        if not now:
            self.known += 1
            return
        self.asked += 1
        self.prompt_tokens += record.prompt_tokens or 0
        self.output_tokens += record.output_tokens
        self.tokens_estimated |= record.tokens_estimated

    def view(self) -> ColumnProgress:
        return ColumnProgress(**vars(self))
