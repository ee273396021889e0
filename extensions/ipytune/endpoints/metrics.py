"""How fast an answer came. Definitions, all in seconds of a monotonic clock:

- ttft: request sent -> first token of any kind. A delta with only a role is no token; one with reasoning or a part of a
  tool call is.
- ttfot: request sent -> first token of the answer itself (not of the reasoning), words or a tool call.
- e2e: request sent -> last token. The chunk with the usage does not end the clock.
- tokens_per_second: (output_tokens - 1) / (e2e - ttft), the speed of writing once it writes; None below two tokens.
- output_tokens: the server's own count. A server that gives none leaves the number of chunks, and `estimated` says so:
  one chunk may hold several tokens.

"Request sent" is the moment its first byte leaves over an open connection; connecting is in `connect`, apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipytune.endpoints.chunks import Chunk, Usage


@dataclass(frozen=True)
class Metrics:
    """See the module. Times are None until they have happened."""

    connect: float | None = None
    ttft: float | None = None
    ttfot: float | None = None
    e2e: float | None = None
    output_tokens: int = 0
    prompt_tokens: int | None = None
    estimated: bool = True
    chunks: int = 0
    attempts: int = 1

    @property
    def tokens_per_second(self) -> float | None:
        if self.ttft is None or self.e2e is None or self.output_tokens < 2 or self.e2e <= self.ttft:
            return None
        return (self.output_tokens - 1) / (self.e2e - self.ttft)

    def as_dict(self) -> dict[str, float | int | bool | None]:
        """For JSON: metrics.json, widget state, reports."""
        return {
            "connect_seconds": self.connect,
            "ttft_seconds": self.ttft,
            "ttfot_seconds": self.ttfot,
            "e2e_seconds": self.e2e,
            "output_tokens": self.output_tokens,
            "output_tokens_estimated": self.estimated,
            "prompt_tokens": self.prompt_tokens,
            "tokens_per_second": self.tokens_per_second,
            "chunks": self.chunks,
            "attempts": self.attempts,
        }


class Stopwatch:
    """Collects the moments of one answer. Times are given in, so that tests need no clock."""

    def __init__(self, started: float, attempts: int = 1) -> None:
        self.started = started
        self.last_token: float | None = None
        self._sent = started
        self._first: float | None = None
        self._first_output: float | None = None
        self._chunks = 0
        self._usage: Usage | None = None
        self._attempts = attempts

    def sent(self, now: float) -> None:
        """The request's first byte leaves."""
        self._sent = now

    def chunk(self, chunk: Chunk, now: float) -> None:
        if chunk.usage is not None:
            self._usage = chunk.usage
        if not (chunk.output or chunk.reasoning):
            return
        self._chunks += 1
        self.last_token = now
        if self._first is None:
            self._first = now
        if chunk.output and self._first_output is None:
            self._first_output = now

    def metrics(self) -> Metrics:
        return Metrics(
            connect=self._sent - self.started,
            ttft=self._since(self._first),
            ttfot=self._since(self._first_output),
            e2e=self._since(self.last_token),
            output_tokens=self._usage.completion_tokens if self._usage else self._chunks,
            prompt_tokens=self._usage.prompt_tokens if self._usage else None,
            estimated=self._usage is None,
            chunks=self._chunks,
            attempts=self._attempts,
        )

    def _since(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self._sent
