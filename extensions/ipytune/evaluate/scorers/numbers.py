"""A scorer of numbers: the last number of the answer, near enough to the expected one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ipytune.evaluate.scorers.score import Case, Score, ScoringFailed

# A sign counts where no letter, digit or bracket stands before it: in "3-4" there is no -4. Thousands may be parted by
# commas, apostrophes and narrow or fixed blanks; the decimal mark is a point.
_NUMBER = re.compile(
    r"(?:(?<![\w)\].])[-+\N{MINUS SIGN}])?"
    r"(?:\d{1,3}(?:[,'\N{RIGHT SINGLE QUOTATION MARK}\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}]\d{3}(?!\d))+|\d+)"
    r"(?:\.\d+)?(?:[eE][-+]?\d{1,4}(?!\w))?"
)


@dataclass(frozen=True)
class Number:
    """|given - expected| <= max(absolute, relative · |expected|), the last number of each text counts.

    The last, because models reason before they conclude, and data sets end with the result.
    """

    absolute: float = 1e-9
    relative: float = 1e-6
    name: str = "number"
    needs_expected: bool = True

    def __post_init__(self) -> None:
        for name, value in (("absolute", self.absolute), ("relative", self.relative)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"number: the {name} tolerance is a number from 0 on, not {value}.")

    def score(self, case: Case) -> Score:
        wanted = last_number(case.wanted)
        if wanted is None:
            raise ScoringFailed("There is no number in the expected answer.")
        given = last_number(case.given)
        if given is None:
            return Score.of(False, "no number in the answer")
        right = abs(given - wanted) <= max(self.absolute, self.relative * abs(wanted))
        return Score.of(right, f"{given:g}" if right else f"{given:g}, expected {wanted:g}")


def last_number(text: str) -> float | None:
    """>>> last_number("2 nodes make 1,536 cores."), last_number("3-4"), last_number("none")
    (1536.0, 4.0, None)
    """
    for match in reversed(_NUMBER.findall(text)):
        value = float(re.sub(r"[^\d.eE+-]", "", match.replace("\N{MINUS SIGN}", "-")))
        if math.isfinite(value):
            return value
    return None
