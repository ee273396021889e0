"""Scorers: from an answer, and what was expected, to a score between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ipytune.evaluate.scorers.judge import Judge, PairwiseJudge
from ipytune.evaluate.scorers.named import row_scorer, scorer
from ipytune.evaluate.scorers.numbers import Number
from ipytune.evaluate.scorers.own import ByRow, Own
from ipytune.evaluate.scorers.patterns import Regex
from ipytune.evaluate.scorers.score import Case, Score, Scorer, ScoringFailed
from ipytune.evaluate.scorers.structures import JsonEqual, JsonSchema
from ipytune.evaluate.scorers.texts import Contains, Exact, Normalised, Similarity

AnyScorer = Scorer | Judge | PairwiseJudge
Given = str | AnyScorer | Callable[[str, str | None], bool | float]


def as_scorers(given: Given | Sequence[Given]) -> tuple[AnyScorer, ...]:
    """Scorers from words, functions and scorers. Raises ValueError for none, an unknown one, or a name twice."""
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    made = tuple(_one(item) for item in several)
    if not made:
        raise ValueError('There is no scorer. Name one, for example "exact".')
    names = [item.name for item in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Two scorers are called {twice[0]!r}. Give one of them another name.")
    return made


def _one(item: Given) -> AnyScorer:
    if isinstance(item, str):
        return scorer(item)
    if hasattr(item, "name") and hasattr(item, "needs_expected"):
        return item  # type: ignore[return-value]
    if callable(item):
        return Own(getattr(item, "__name__", "own"), item)
    raise ValueError(f"{type(item).__name__} is no scorer. Give a word, a function or a scorer.")


__all__ = [
    "AnyScorer",
    "ByRow",
    "Case",
    "Contains",
    "Exact",
    "Given",
    "JsonEqual",
    "JsonSchema",
    "Judge",
    "Normalised",
    "Number",
    "Own",
    "PairwiseJudge",
    "Regex",
    "Score",
    "Scorer",
    "ScoringFailed",
    "Similarity",
    "as_scorers",
    "row_scorer",
    "scorer",
]
