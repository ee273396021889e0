"""When requests are due. Pure: the whole schedule of a step follows from its plan and seed.

Processes that share a step all walk the same schedule and take every n-th request of it, so that together they send
what one would have sent.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ipytune.endpoints.errors import BadRequest
from ipytune.load.plan import Load, Plan

_LONGEST_TRACE = 1_000_000


@dataclass(frozen=True)
class TraceRow:
    """at: seconds since the first row. words of the prompt and tokens of the answer."""

    at: float
    words: int
    tokens: int


@dataclass(frozen=True)
class Arrival:
    """at: seconds since the start of the step. words, tokens: None where the plan's own hold."""

    index: int
    at: float
    measured: bool
    words: int | None = None
    tokens: int | None = None


def schedule(plan: Plan, load: Load, trace: tuple[TraceRow, ...] = ()) -> Iterator[Arrival]:
    """The requests of an open loop in the order in which they are due."""
    warmup = plan.warmup_of(load)
    begin: float | None = None
    sent = 0
    rows: Iterator[tuple[float, int | None, int | None]]
    if load.kind == "trace":
        rows = ((row.at, row.words, row.tokens) for row in trace)
    else:
        rows = ((ramped(moment, plan.ramp), None, None) for moment in moments(plan, load.value))
    for index, (at, words, tokens) in enumerate(rows):
        measured = index >= warmup and at >= plan.ramp
        if measured:
            begin = at if begin is None else begin
            if plan.duration is not None and at - begin >= plan.duration:
                return
            if plan.requests is not None and sent >= plan.requests:
                return
            sent += 1
        yield Arrival(index, at, measured, words, tokens)


def moments(plan: Plan, rate: float) -> Iterator[float]:
    """Seconds at which requests come at `rate` a second, without end.

    poisson: gaps from a gamma distribution of mean 1/rate and shape `burstiness` (1: exponential, a Poisson process).
    """
    if plan.arrivals == "constant":
        yield from (index / rate for index in itertools.count())
        return
    draw = random.Random(plan.seed)
    at = 0.0
    while True:
        at += draw.gammavariate(plan.burstiness, 1 / (rate * plan.burstiness))
        yield at


def ramped(moment: float, ramp: float) -> float:
    """A moment of a steady process, moved so that the rate grows linearly from 0 over `ramp` seconds.

    By then ramp/2 seconds' worth of requests have come.

    >>> ramped(1.0, 2.0), ramped(0.25, 2.0), ramped(5.0, 2.0)
    (2.0, 1.0, 6.0)
    """
    if moment < ramp / 2:
        return math.sqrt(2 * ramp * moment)
    return moment + ramp / 2


def share_of(total: int, share: int, of: int) -> int:
    """The part of `total` that falls to process `share` of `of`. The parts sum to the total."""
    return total // of + (1 if share < total % of else 0)


def read_trace(path: Path, scale: float = 1.0) -> tuple[TraceRow, ...]:
    """The rows of a trace, in the order of their moments, the first at 0. Raises BadRequest naming the line."""
    rows = []
    try:
        with path.expanduser().open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    rows.append(_row(line, path, number, scale))
                if len(rows) > _LONGEST_TRACE:
                    raise BadRequest(f"{path} is too long.", f"More than {_LONGEST_TRACE} requests.", "Cut it.")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise BadRequest(f"The trace {path} cannot be read.", f"{why}.", "Name a file of JSON lines.") from None
    if not rows:
        raise BadRequest(f"The trace {path} is empty.", "It holds no line.", "Name a file with a request a line.")
    rows.sort(key=lambda row: row.at)
    first = rows[0].at
    return tuple(TraceRow(row.at - first, row.words, row.tokens) for row in rows)


def mean_rate(trace: tuple[TraceRow, ...]) -> float:
    """Requests per second, 0 for a trace of one request."""
    return (len(trace) - 1) / trace[-1].at if trace and trace[-1].at > 0 else 0.0


def _row(line: str, path: Path, number: int, scale: float) -> TraceRow:
    try:
        row = json.loads(line)
        at, words, tokens = float(row["timestamp"]) * scale, int(row["input_length"]), int(row["output_length"])
        if not math.isfinite(at) or not 1 <= words <= 200_000 or not 1 <= tokens <= 100_000:
            raise ValueError
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise BadRequest(
            f"Line {number} of the trace {path} is no request.",
            "It needs timestamp (a number), input_length (1 to 200000 words), output_length (1 to 100000 tokens).",
            'Write lines like {"timestamp": 0.5, "input_length": 300, "output_length": 80}.',
        ) from None
    return TraceRow(at, words, tokens)
