"""A scorer by regular expression, with a limit on its time: some patterns take longer than the universe on some text.

The `regex` module and not `re`: it stops at a time limit, and lets other threads run meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

import regex

from ipytune.evaluate.scorers.score import Case, Score, ScoringFailed, clipped

SECONDS = 1.0


@dataclass(frozen=True)
class Regex:
    """The pattern is found somewhere in the answer (anchor it with \\A and \\Z to match the whole); ^ and $ mean lines.

    pattern: None takes each row's expected answer as its pattern.
    """

    pattern: str | None = None
    name: str = "regex"

    def __post_init__(self) -> None:
        if self.pattern is not None:
            compiled(self.pattern)

    @property
    def needs_expected(self) -> bool:
        return self.pattern is None

    def score(self, case: Case) -> Score:
        pattern = case.wanted if self.pattern is None else self.pattern
        found = search(pattern, case.given)
        return Score.of(found is not None, f"found {clipped(found)!r}" if found is not None else "not found")


def compiled(pattern: str) -> regex.Pattern[str]:
    """Raises ValueError with the place of the mistake."""
    try:
        return regex.compile(pattern, regex.MULTILINE)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{clipped(pattern)!r} is no regular expression: {error}.") from None


def search(pattern: str, text: str) -> str | None:
    """What the pattern finds first, or None. Raises ScoringFailed for a bad pattern and when the time is over."""
    try:
        match = compiled(pattern).search(text, timeout=SECONDS, concurrent=True)
    except TimeoutError:
        raise ScoringFailed(
            f"The pattern {clipped(pattern)!r} took longer than {SECONDS:g} s on an answer of {len(text)} characters. "
            f"Nested repeats such as (a+)+ do that: write it simpler."
        ) from None
    except ValueError as error:
        raise ScoringFailed(str(error)) from None
    return None if match is None else match.group()
