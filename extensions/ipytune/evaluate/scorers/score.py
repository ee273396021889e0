"""What scorers take and give. A scorer is pure: an answer in, a score out; judges, who ask a model, are in `judge`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class ScoringFailed(ValueError):
    """No score could be found: this is an error of the scorer and counts neither for nor against the answer."""


@dataclass(frozen=True)
class Score:
    """value: 0 to 1.   passed: right or wrong, None where there is no such line.   detail: the reason, for a reader."""

    value: float
    passed: bool | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and 0 <= self.value <= 1):
            raise ScoringFailed(f"A score lies between 0 and 1, not at {self.value}.")

    @classmethod
    def of(cls, passed: bool, detail: str = "") -> Score:
        """Right or wrong, nothing between."""
        return cls(1.0 if passed else 0.0, passed, detail)


@dataclass(frozen=True)
class Case:
    """One answer to score.

    asked: the messages that were sent.   given: the answer, without the reasoning before it.   expected: what the data
    says, or None.   scorer: the row's own scorer, as a word (`named`).
    """

    given: str
    expected: str | None = None
    asked: tuple[Mapping[str, Any], ...] = ()
    scorer: str | None = None

    @property
    def wanted(self) -> str:
        """The expected answer. Raises ScoringFailed for a row without; validation has seen to it that there is one."""
        if self.expected is None:
            raise ScoringFailed("The row has no expected answer.")
        return self.expected


class Scorer(Protocol):
    """name: the heading of its column.   needs_expected: whether a row without expected answer is refused."""

    @property
    def name(self) -> str: ...

    @property
    def needs_expected(self) -> bool: ...

    def score(self, case: Case) -> Score:
        """Raises ScoringFailed."""
        ...


def clipped(text: str, length: int = 80) -> str:
    """On one line and short, for a detail."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
