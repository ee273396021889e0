"""From the records of a step to its numbers. Pure; all times in seconds.

- TTFT: request sent -> first token of any kind, reasoning included. TTFOT: -> first token that is not reasoning.
- e2e: request sent -> last token. TPOT: (e2e - TTFT) / (output tokens - 1).
- ITL: pooled gaps between the chunks of each answer. Where chunks hold several tokens it is the latency between
  *chunks*, and is named so (`chunks_hold_several`).
- Tokens: the server's count (`usage`); where it gives none chunks are counted, and `tokens_estimated` says so.
- Throughput: tokens that came within the window, over its length. The window is the steady part: after warm-up and
  ramp, until nothing more was sent.
- Goodput: requests sent in the window that met every objective, over its length; a failed one met none.
- Distributions are over requests that succeeded. Failures are counted apart, by kind, with one message each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from ipytune.load.numbers import Distribution
from ipytune.load.plan import Objectives
from ipytune.load.records import Record

_SECOND = 1e-9
_SEVERAL = 1.05  # tokens per chunk from which a chunk is not a token


class Failures(BaseModel):
    """Requests that failed in one way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    count: int
    example: str


class Numbers(BaseModel):
    """See the module."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_seconds: float
    measured: int
    succeeded: int
    failed: int
    unfinished: int
    failures: tuple[Failures, ...]
    ttft: Distribution
    ttfot: Distribution
    itl: Distribution
    tpot: Distribution
    e2e: Distribution
    queue: Distribution
    connect: Distribution
    tokens_per_chunk: float | None
    chunks_hold_several: bool
    tokens_estimated: bool
    prompt_tokens_mean: float | None
    output_tokens_mean: float | None
    output_tokens_per_second: float
    requests_per_second: float
    concurrency_mean: float
    concurrency_max: int
    goodput: float | None
    good_share: float | None

    @property
    def gap_name(self) -> str:
        return "inter-chunk latency" if self.chunks_hold_several else "ITL"


@dataclass(frozen=True)
class Window:
    """Nanoseconds of CLOCK_MONOTONIC."""

    begin: int
    end: int

    @property
    def seconds(self) -> float:
        return max(self.end - self.begin, 0) * _SECOND


def window_of(records: Sequence[Record], begins: Sequence[int], ends: Sequence[int]) -> Window:
    """The steady part of a step that several processes shared; 0 among begins or ends: that one has none.

    Without a duration it ends when the last measured request was sent, because from then on the load falls; where that
    is less than half of all there was (few requests, all at once), when the last answer ended.
    """
    known = [begin for begin in begins if begin]
    if not known:
        return Window(0, 0)
    limits = [end for end in ends if end]
    if limits:
        return Window(max(known), max(min(limits), max(known)))
    begin = min(known)
    measured = [record for record in records if record.measured and record.sent]
    if not measured:
        return Window(begin, begin)
    last_sent, last_ended = max(r.sent for r in measured), max(r.ended for r in measured)
    end = last_sent if last_sent - begin > (last_ended - begin) / 2 else last_ended
    return Window(begin, max(end, begin))


def summarise(records: Sequence[Record], window: Window, objectives: Objectives) -> Numbers:
    """The numbers of one step from all of its records, those of warm-up included (they load the server, too)."""
    measured = [r for r in records if r.measured and window.begin <= max(r.begun, r.due) <= window.end]
    good = [record for record in measured if record.ok]
    unfinished = sum(record.unfinished for record in measured)
    chunks = sum(len(record.times) for record in good)
    counted = [record for record in good if not record.estimated]
    per_chunk = _ratio(sum(r.tokens for r in counted), sum(len(r.times) for r in counted))
    met = sum(meets(record, objectives) for record in measured)
    asked = bool(objectives.named)
    mean, most = concurrency(records, window)
    seconds = window.seconds
    return Numbers(
        window_seconds=seconds,
        measured=len(measured),
        succeeded=len(good),
        failed=len(measured) - len(good) - unfinished,
        unfinished=unfinished,
        failures=failures(measured),
        ttft=Distribution.of([r.ttft for r in good if r.ttft is not None]),
        ttfot=Distribution.of([r.ttfot for r in good if r.ttfot is not None]),
        itl=Distribution.of([gap for record in good for gap in record.gaps]),
        tpot=Distribution.of([r.tpot for r in good if r.tpot is not None]),
        e2e=Distribution.of([r.e2e for r in good if r.e2e is not None]),
        queue=Distribution.of([r.queue for r in measured]),
        connect=Distribution.of([r.connect for r in good]),
        tokens_per_chunk=per_chunk,
        chunks_hold_several=per_chunk is not None and per_chunk > _SEVERAL,
        tokens_estimated=chunks > 0 and len(counted) < len(good),
        prompt_tokens_mean=_mean([r.prompt_tokens for r in good if r.prompt_tokens is not None]),
        output_tokens_mean=_mean([r.tokens for r in good]),
        output_tokens_per_second=_ratio(tokens_within(records, window), seconds) or 0.0,
        requests_per_second=_ratio(sum(ended_within(r, window) for r in records), seconds) or 0.0,
        concurrency_mean=mean,
        concurrency_max=most,
        goodput=_ratio(met, seconds) if asked else None,
        good_share=_ratio(met, len(measured)) if asked else None,
    )


def meets(record: Record, objectives: Objectives) -> bool:
    """Every objective, and without error. A TPOT that cannot be (a single token) misses nothing."""
    if not record.ok:
        return False
    found = {"ttft": record.ttft, "tpot": record.tpot, "e2e": record.e2e}
    return all((value := found[name]) is None or value <= limit for name, limit in objectives.named.items())


def failures(records: Sequence[Record]) -> tuple[Failures, ...]:
    """By kind, the most frequent first; requests that the end of the step cut off are none."""
    failed = [record for record in records if record.error is not None and not record.unfinished]
    examples: dict[str, str] = {}
    for record in failed:
        examples.setdefault(record.error or "", record.message)
    counts = Counter(record.error or "" for record in failed)
    return tuple(Failures(kind=kind, count=n, example=examples[kind]) for kind, n in counts.most_common())


def tokens_within(records: Sequence[Record], window: Window) -> float:
    """Tokens that came in the window. A chunk counts as many as its answer's chunks hold on average."""
    total = 0.0
    for record in records:
        if record.times:
            came = bisect_right(record.times, window.end) - bisect_left(record.times, window.begin)
            total += came * record.tokens / len(record.times)
    return total


def ended_within(record: Record, window: Window) -> bool:
    return record.ok and window.begin <= record.times[-1] <= window.end


def concurrency(records: Sequence[Record], window: Window) -> tuple[float, int]:
    """Requests in flight within the window: (mean over time, most)."""
    changes = []
    for record in records:
        begin, end = max(record.sent, window.begin), min(record.ended, window.end)
        if record.sent and begin < end:
            changes += [(begin, 1), (end, -1)]
    changes.sort()
    area = now = most = 0
    before = window.begin
    for at, change in changes:
        area += now * (at - before)
        before = at
        now += change
        most = max(most, now)
    length = window.end - window.begin
    return (area / length if length > 0 else 0.0), most


def _mean(values: Sequence[int]) -> float | None:
    return _ratio(sum(values), len(values))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
