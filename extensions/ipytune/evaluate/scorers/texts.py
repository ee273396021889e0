"""Scorers that compare text: equal, equal but for what does not matter, holds these words, is alike."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from ipytune.evaluate.scorers.score import Case, Score, clipped

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_LONGEST = 50_000  # characters that are compared for similarity; the time grows with the square


@dataclass(frozen=True)
class Exact:
    """Equal but for white space at the ends, which no reader sees."""

    name: str = "exact"
    needs_expected: bool = True

    def score(self, case: Case) -> Score:
        right = case.given.strip() == case.wanted.strip()
        return Score.of(right, "" if right else f"expected {clipped(case.wanted)!r}")


@dataclass(frozen=True)
class Normalised:
    """Equal after removing differences that do not matter; each can be kept.

    case: capitals count as small letters (Unicode's case folding, after NFKC).   whitespace: any run counts as one
    blank.   punctuation: left out, symbols such as + stay.   articles: a, an, the are left out (English only).
    """

    case: bool = True
    whitespace: bool = True
    punctuation: bool = True
    articles: bool = False
    name: str = "normalised"
    needs_expected: bool = True

    def score(self, case: Case) -> Score:
        right = self.normal(case.given) == self.normal(case.wanted)
        return Score.of(right, "" if right else f"expected {clipped(self.normal(case.wanted))!r}")

    def normal(self, text: str) -> str:
        text = unicodedata.normalize("NFKC", text)
        if self.case:
            text = text.casefold()
        if self.punctuation:
            text = "".join(letter for letter in text if not unicodedata.category(letter).startswith("P"))
        if self.articles:
            text = _ARTICLES.sub(" ", text)
        return " ".join(text.split()) if self.whitespace or self.articles else text.strip()


@dataclass(frozen=True)
class Contains:
    """The answer holds any, or all, of these words; without words, the expected answer. Capitals do not matter."""

    words: tuple[str, ...] = ()
    every: bool = False
    name: str = "contains"

    def __post_init__(self) -> None:
        if any(not word for word in self.words):
            raise ValueError("contains: an empty word is in every answer. Leave it out.")

    @property
    def needs_expected(self) -> bool:
        return not self.words

    def score(self, case: Case) -> Score:
        text = case.given.casefold()
        words = self.words or (case.wanted.strip(),)
        missing = [word for word in words if word.casefold() not in text]
        right = not missing if self.every else len(missing) < len(words)
        return Score.of(right, "" if right else f"lacks {', '.join(repr(clipped(word, 30)) for word in missing[:5])}")


@dataclass(frozen=True)
class Similarity:
    """Letters that both have in the same order (their longest common subsequence), of all letters, 0 to 1.

    threshold: from here on the answer passes; None gives the value only.
    """

    threshold: float | None = 0.8
    name: str = "similarity"
    needs_expected: bool = True

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"similarity: the threshold lies between 0 and 1, not at {self.threshold:g}.")

    def score(self, case: Case) -> Score:
        value = similarity(case.given.strip(), case.wanted.strip())
        return Score(value, None if self.threshold is None else value >= self.threshold, f"{value:.2f}")


def similarity(one: str, other: str) -> float:
    """Twice the length of the longest common subsequence, over both lengths; 1 for two empty texts.

    Texts beyond 50,000 characters are compared by their beginnings.
    """
    one, other = one[:_LONGEST], other[:_LONGEST]
    if one == other:
        return 1.0
    return 2 * common_length(one, other) / (len(one) + len(other))


def common_length(one: str, other: str) -> int:
    """Length of the longest common subsequence: a row of the table at a time, as the bits of one integer.

    Source: H. Hyyrö, Bit-parallel LCS-length computation revisited, 2004. 2,000 letters each take about a millisecond.
    """
    at: dict[str, int] = {}
    for place, letter in enumerate(one):
        at[letter] = at.get(letter, 0) | 1 << place
    whole = (1 << len(one)) - 1
    row = whole
    for letter in other:
        hits = row & at.get(letter, 0)
        row = ((row + hits) | (row - hits)) & whole
    return len(one) - row.bit_count()
