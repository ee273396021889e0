"""What an evaluation asks whom, validated: nothing is paid for before this stands."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipytune.endpoints.records import Endpoint
from ipytune.evaluate.questions import Questions, by_row, read_questions
from ipytune.evaluate.scorers import AnyScorer, ByRow, Exact, Given, PairwiseJudge, as_scorers, row_scorer

DIRECTORY = Path("evaluations")
QUESTIONS = "questions.jsonl"


@dataclass(frozen=True)
class Plan:
    """options: fields of every request.   cache: a directory of answers that several evaluations share, or None."""

    data: str
    questions: Questions
    endpoints: tuple[Endpoint, ...]
    scorers: tuple[AnyScorer, ...]
    options: Mapping[str, Any]
    repeats: int
    concurrency: int
    directory: Path
    cache: Path | None

    @property
    def answers(self) -> int:
        """Answers of each endpoint."""
        return len(self.questions) * self.repeats

    def as_dict(self) -> dict[str, Any]:
        """For evaluation.json: everything that determines the result, and no key."""
        return {
            "data": self.data,
            "questions": len(self.questions),
            "repeats": self.repeats,
            "endpoints": [endpoint.model_dump(mode="json", exclude_none=True) for endpoint in self.endpoints],
            "scorers": [scorer.name for scorer in self.scorers],
            "pairwise": [isinstance(scorer, PairwiseJudge) for scorer in self.scorers],
            "options": dict(self.options),
        }


def plan(
    data: Any,
    endpoints: Endpoint | Sequence[Endpoint],
    scorers: Given | Sequence[Given] | None = None,
    *,
    concurrency: int = 16,
    limit: int | None = None,
    directory: Path | str | None = None,
    cache: Path | str | None = None,
    max_tokens: int | None = 512,
    temperature: float | None = 0.0,
    system: str | None = None,
    repeats: int = 1,
    **options: Any,
) -> Plan:
    """See `ipytune.evaluate.evaluate`. Writes the questions into the directory, aside, and asks nothing.

    Raises DatasetError, FileNotFoundError, and ValueError naming the argument.
    """
    asked = _endpoints(endpoints)
    for name, count in (("concurrency", concurrency), ("repeats", repeats), ("max_tokens", max_tokens or 1)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} is a whole number from 1 on, not {count!r}.")
    if temperature is not None and not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature is a number from 0 on, not {temperature}.")
    chosen = as_scorers(scorers) if scorers is not None else (Exact(),)
    needing = [scorer.name for scorer in chosen if scorer.needs_expected]
    questions = read_questions(data, system=system, limit=limit, needing=needing)
    if by_row(questions):
        plain = next((item for item in chosen if hasattr(item, "score")), Exact())
        rest = () if scorers is None else tuple(item for item in chosen if item is not plain)
        chosen = as_scorers([ByRow(row_scorer, plain), *rest])
    if len(asked) < 2 and any(isinstance(scorer, PairwiseJudge) for scorer in chosen):
        raise ValueError("A pairwise judge compares with the first endpoint: give at least two endpoints.")
    words = dict(options)
    if max_tokens is not None:
        words["max_tokens"] = max_tokens
    if temperature is not None:
        words["temperature"] = temperature
    try:
        json.dumps(words)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The options go into the request as JSON, which fails: {error}.") from None
    source = str(data) if isinstance(data, (str, Path)) else type(data).__name__
    where = (DIRECTORY / _stem(source) if directory is None else Path(directory)).expanduser()
    where.mkdir(parents=True, exist_ok=True)
    # Sampling without repeats asks for one draw: taking another run's draw would make runs the same by accident.
    draws = temperature is None or temperature > 0
    shared = None if cache is None or (draws and repeats == 1) else Path(cache)
    return Plan(
        data=source,
        questions=Questions.write_aside(where / QUESTIONS, questions),
        endpoints=asked,
        scorers=chosen,
        options=words,
        repeats=repeats,
        concurrency=concurrency,
        directory=where,
        cache=shared,
    )


def _endpoints(given: Endpoint | Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Each under a name of its own: results are found by it."""
    endpoints = [given] if isinstance(given, Endpoint) else list(given)
    if not endpoints:
        raise ValueError("There is no endpoint to evaluate. Give at least one.")
    for endpoint in endpoints:
        if not isinstance(endpoint, Endpoint):
            raise ValueError(
                f"{type(endpoint).__name__} is no Endpoint. Make one: Endpoint(name=…, base_url=…, model=…)."
            )
    names = [endpoint.name for endpoint in endpoints]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Two endpoints are called {twice[0]!r}. Give one of them another name.")
    return tuple(endpoints)


def _stem(source: str) -> str:
    name = Path(source).name.split(".")[0] if os.sep in source or "." in source else source
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "data"
