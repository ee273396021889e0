"""Scores of an evaluation in memory: numbers only, some bytes an answer; words stay in the files."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from enum import IntEnum

from ipytune.evaluate.scorers.score import Score

# A score, the reason why a scorer found none, or None where it was not its turn.
Found = Score | str | None


class State(IntEnum):
    """Of one answer."""

    OPEN = 0
    ANSWERED = 1
    FAILED = 2


class Sheet:
    """A table of endpoints and scorers, by the number of the question and of the repeat.

    values are NaN, and passed is -1, where there is no score; place is where the row stands in scores.jsonl, or -1.
    """

    def __init__(self, endpoints: Sequence[str], scorers: Sequence[str], questions: int, repeats: int) -> None:
        self.endpoints = tuple(endpoints)
        self.scorers = tuple(scorers)
        self.questions = questions
        self.repeats = repeats
        n = questions * repeats
        self.state = [array("b", [State.OPEN]) * n for _ in endpoints]
        self._values = [[array("d", [math.nan]) * n for _ in scorers] for _ in endpoints]
        self._passed = [[array("b", [-1]) * n for _ in scorers] for _ in endpoints]
        self._unscored = [array("b", [0]) * n for _ in endpoints]
        self._place = [array("q", [-1]) * n for _ in endpoints]
        self._pair_place: dict[tuple[int, int], int] = {}

    def put(
        self, endpoint: int, question: int, repeat: int, scores: Sequence[Found], place: int, answered: bool = True
    ) -> None:
        """One answer's scores, in the scorers' order."""
        at = question * self.repeats + repeat
        self.state[endpoint][at] = State.ANSWERED if answered else State.FAILED
        self._place[endpoint][at] = place
        for scorer, score in enumerate(scores):
            self._set(endpoint, scorer, at, score)

    def put_pair(self, endpoint: int, question: int, repeat: int, scorer: int, score: Found, place: int) -> None:
        """What was found later by comparing with another endpoint's answer."""
        at = question * self.repeats + repeat
        self._set(endpoint, scorer, at, score)
        self._pair_place[endpoint, at] = place

    def _set(self, endpoint: int, scorer: int, at: int, score: Found) -> None:
        if isinstance(score, Score):
            self._values[endpoint][scorer][at] = score.value
            self._passed[endpoint][scorer][at] = -1 if score.passed is None else int(score.passed)
        elif score is not None:
            self._unscored[endpoint][at] = 1

    def value(self, endpoint: int, scorer: int, question: int, repeat: int = 0) -> float:
        return self._values[endpoint][scorer][question * self.repeats + repeat]

    def passed(self, endpoint: int, scorer: int, question: int, repeat: int = 0) -> bool | None:
        found = self._passed[endpoint][scorer][question * self.repeats + repeat]
        return None if found < 0 else bool(found)

    def places(self, endpoint: int, question: int, repeat: int) -> tuple[int, ...]:
        """Where the lines of this answer stand in scores.jsonl."""
        at = question * self.repeats + repeat
        places = (self._place[endpoint][at], self._pair_place.get((endpoint, at), -1))
        return tuple(place for place in places if place >= 0)

    def answered(self, endpoint: int) -> int:
        return self.state[endpoint].count(State.ANSWERED)

    def failed(self, endpoint: int) -> int:
        return self.state[endpoint].count(State.FAILED)

    def binary(self, scorer: int) -> bool:
        """Whether this scorer only ever says right or wrong."""
        return all(
            value in (0.0, 1.0) and passed >= 0
            for endpoint in range(len(self.endpoints))
            for value, passed in zip(self._values[endpoint][scorer], self._passed[endpoint][scorer], strict=True)
            if not math.isnan(value)
        )

    def mean_of(self, endpoint: int, scorer: int, question: int) -> float:
        """The mean over a question's repeats; NaN where none was scored."""
        first = question * self.repeats
        values = [v for v in self._values[endpoint][scorer][first : first + self.repeats] if not math.isnan(v)]
        return sum(values) / len(values) if values else math.nan

    def worst(self, question: int) -> float:
        """For the order of a report: the lowest score of any endpoint, -1 where an answer is missing or unscored."""
        first = question * self.repeats
        last = first + self.repeats
        if any(State.FAILED in state[first:last] for state in self.state):
            return -1.0
        values = [v for row in self._values for column in row for v in column[first:last] if not math.isnan(v)]
        return min(values, default=-1.0)

    def fails(self, question: int) -> bool:
        """Whether any answer is missing, unscored or not passed; without such a line, below one half."""
        first = question * self.repeats
        for at in range(first, first + self.repeats):
            for endpoint, state in enumerate(self.state):
                if state[at] == State.FAILED or self._unscored[endpoint][at]:
                    return True
                for values, passed in zip(self._values[endpoint], self._passed[endpoint], strict=True):
                    if passed[at] == 0 or (passed[at] < 0 and values[at] < 0.5):
                        return True
        return False

    def differs(self, question: int) -> bool:
        """Whether endpoints fare differently on this question by any scorer."""
        for scorer in range(len(self.scorers)):
            means = {self.mean_of(endpoint, scorer, question) for endpoint in range(len(self.endpoints))}
            if len({mean for mean in means if not math.isnan(mean)}) > 1:
                return True
        return False
