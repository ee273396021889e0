"""What a mock server knows about itself: counts, and for every request when each token was really written.

Moments are seconds of CLOCK_MONOTONIC, the clock of time.monotonic(): every process of one machine reads the same, so
what a client measured can be held against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Stats:
    """Counts since the start or the last reset. requests: of answers, so without those for models, health and so on.

    completed: written to their end (an error that was meant to be inside the stream included).
    cancelled: the client left before the end.   refused: answered with another status than 200.
    cut: ended by the server in the middle.   in_flight, waiting: now; waiting ones have no slot yet.
    tokens: written.   worst_lateness: seconds that the latest token came after it was due: the mock's own limit.
    blocked: how often a client did not read what was written.   connections: open now.
    """

    requests: int = 0
    completed: int = 0
    cancelled: int = 0
    refused: int = 0
    cut: int = 0
    in_flight: int = 0
    waiting: int = 0
    peak_in_flight: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    connections: int = 0
    blocked: int = 0
    worst_lateness: float = 0.0

    @classmethod
    def merged(cls, parts: list[Stats]) -> Stats:
        """Of several processes. The peak is the sum of their peaks: at most so many were in flight together."""
        sums = {item.name: sum(getattr(part, item.name) for part in parts) for item in fields(cls)}
        sums["worst_lateness"] = max((part.worst_lateness for part in parts), default=0.0)
        return cls(**sums)


@dataclass(frozen=True)
class Truth:
    """One request as it really went. id is that of the answer's chunks, or the request's X-Request-Id.

    arrival: the last byte of the request was read.   writes: one moment for each event that held tokens, taken just
    before it was written; counts: the tokens in each.   reasoning: how many of the events were thought.
    ended: "done", "cancelled" (the client left), "cut", "refused", or "open" while it goes on.
    """

    id: str
    model: str
    arrival: float
    writes: tuple[float, ...] = field(repr=False, default=())
    counts: tuple[int, ...] = field(repr=False, default=())
    reasoning: int = 0
    prompt_tokens: int = 0
    ended: str = "open"
    status: int = 200

    @property
    def first_token(self) -> float | None:
        return self.writes[0] if self.writes else None

    @property
    def first_output(self) -> float | None:
        """The first token of the answer itself."""
        return self.writes[self.reasoning] if len(self.writes) > self.reasoning else None

    @property
    def last_token(self) -> float | None:
        return self.writes[-1] if self.writes else None

    @property
    def tokens(self) -> int:
        return sum(self.counts)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Truth:
        return cls(**{**values, "writes": tuple(values["writes"]), "counts": tuple(values["counts"])})


@dataclass(frozen=True)
class Asked:
    """A request as it came. The key is not kept: of Authorization only whether there was one is known."""

    path: str
    headers: dict[str, str]
    body: Any
