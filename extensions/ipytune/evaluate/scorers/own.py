"""A scorer from a function of one's own, and the one that follows each row's `scorer` column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ipytune.evaluate.scorers.score import Case, Score, Scorer, ScoringFailed


@dataclass(frozen=True)
class Own:
    """`function(given, expected)` gives True or False, or a number from 0 to 1. expected is None for a row without.

    What it raises is an error of the scorer, not a score.
    """

    name: str
    function: Callable[[str, str | None], bool | float]
    needs_expected: bool = False

    def score(self, case: Case) -> Score:
        try:
            value = self.function(case.given, case.expected)
        except Exception as error:  # a user's code may raise anything; the evaluation goes on and shows it
            raise ScoringFailed(f"{self.name}: {type(error).__name__}: {error}") from None
        if isinstance(value, bool) or str(type(value)) in ("<class 'numpy.bool'>", "<class 'numpy.bool_'>"):
            return Score.of(bool(value))
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ScoringFailed(f"{self.name} gave {type(value).__name__}, not True, False or a number.") from None
        return Score(number)


@dataclass(frozen=True)
class ByRow:
    """Each row's own scorer, as its `scorer` column names it; `otherwise` for rows that name none."""

    parse: Callable[[str], Scorer]
    otherwise: Scorer
    name: str = "row"

    @property
    def needs_expected(self) -> bool:
        return False  # depends on the row: checked there

    def of(self, word: str | None) -> Scorer:
        """Raises ValueError for an unknown word."""
        return self.parse(word) if word else self.otherwise

    def score(self, case: Case) -> Score:
        return self.of(case.scorer).score(case)
