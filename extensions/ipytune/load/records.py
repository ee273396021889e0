"""One request as it was measured: moments, counts, how it ended. Never what was said.

Moments are nanoseconds of CLOCK_MONOTONIC, so that records of several processes of one machine, and the log of a server
on it, can be laid beside one another. 0 stands for what has not happened.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

_SECOND = 1e-9


class Kind:
    """Ways in which a request fails besides a status ("HTTP 429")."""

    REFUSED = "no connection"
    CONNECT = "connect timed out"
    FIRST_TOKEN = "first token timed out"
    BETWEEN_TOKENS = "stalled between tokens"
    TOTAL = "total timed out"
    CUT = "cut off"
    MALFORMED = "malformed HTTP"
    UNREADABLE = "unreadable event"
    IN_STREAM = "error in the stream"
    NO_STREAM = "no stream"
    EMPTY = "empty answer"
    UNFINISHED = "unfinished at the end"


@dataclass
class Record:
    """due: planned; begun: taken up by the client; sent: written to an open connection; ended: response complete.

    times: when each chunk with a token came, the last read that completes it.   measured: false for warm-up and ramp.
    error: None, or the kind of failure (see Kind).
    """

    index: int
    measured: bool = True
    due: int = 0
    begun: int = 0
    sent: int = 0
    ended: int = 0
    first_output: int = 0
    times: array[int] = field(default_factory=lambda: array("q"))
    status: int = 0
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    response_id: str = ""
    error: str | None = None
    message: str = ""

    def failed(self, kind: str, message: str) -> Record:
        self.error, self.message = kind, message
        return self

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def unfinished(self) -> bool:
        return self.error == Kind.UNFINISHED

    @property
    def queue(self) -> float:
        """Seconds from due to taken up: the client's own lateness."""
        return (self.begun - self.due) * _SECOND

    @property
    def connect(self) -> float:
        return (self.sent - self.begun) * _SECOND if self.sent else 0.0

    @property
    def ttft(self) -> float | None:
        return (self.times[0] - self.sent) * _SECOND if self.times else None

    @property
    def ttfot(self) -> float | None:
        return (self.first_output - self.sent) * _SECOND if self.first_output else None

    @property
    def e2e(self) -> float | None:
        return (self.times[-1] - self.sent) * _SECOND if self.times else None

    @property
    def estimated(self) -> bool:
        """The server gave no count; the number of chunks stands for it."""
        return self.output_tokens is None

    @property
    def tokens(self) -> int:
        return len(self.times) if self.output_tokens is None else self.output_tokens

    @property
    def tpot(self) -> float | None:
        """Seconds per output token after the first; None below two tokens."""
        if self.tokens < 2 or not self.times:
            return None
        return (self.times[-1] - self.times[0]) * _SECOND / (self.tokens - 1)

    @property
    def gaps(self) -> list[float]:
        """Seconds between the chunks that held tokens."""
        times = self.times
        return [(later - earlier) * _SECOND for earlier, later in zip(times, times[1:], strict=False)]

    def packed(self) -> list[Any]:
        """For the pipe between worker and controller: JSON of whole numbers, exact."""
        fields = [getattr(self, name) for name in _PLAIN]
        # Differences are short: a step of a million tokens stays a line of some megabytes.
        return [*fields, [later - earlier for earlier, later in zip([0, *self.times], self.times, strict=False)]]

    @classmethod
    def unpacked(cls, fields: list[Any]) -> Record:
        *plain, gaps = fields
        return cls(**dict(zip(_PLAIN, plain, strict=True)), times=array("q", accumulate(gaps)))

    def as_json(self) -> dict[str, Any]:
        """A line of records.jsonl: one absolute moment, the rest durations, all in seconds to the microsecond."""
        return {
            "index": self.index,
            "measured": self.measured,
            "sent_monotonic": round(self.sent * _SECOND, 6),
            "queue": round(self.queue, 6),
            "connect": round(self.connect, 6),
            "ttft": _rounded(self.ttft),
            "ttfot": _rounded(self.ttfot),
            "e2e": _rounded(self.e2e),
            "tpot": _rounded(self.tpot),
            "chunk_times": [round((time - self.sent) * _SECOND, 6) for time in self.times],
            "output_tokens": self.tokens,
            "output_tokens_estimated": self.estimated,
            "prompt_tokens": self.prompt_tokens,
            "response_id": self.response_id,
            "status": self.status,
            "error": self.error,
            "message": self.message,
        }


_PLAIN = (
    "index",
    "measured",
    "due",
    "begun",
    "sent",
    "ended",
    "first_output",
    "status",
    "output_tokens",
    "prompt_tokens",
    "response_id",
    "error",
    "message",
)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
