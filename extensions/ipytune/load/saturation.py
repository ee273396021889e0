"""Whether the server keeps up with a step. Pure.

Open loop: it does not when requests in flight and TTFT both keep growing while the rate stays (a slope that is clear
of its error, and a growth that matters). Closed loop: when more users bring no more tokens. In either: when too few
requests meet the objectives.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipytune.endpoints.format import seconds
from ipytune.load.metrics import Numbers, Window
from ipytune.load.numbers import percentile, slope
from ipytune.load.plan import Load
from ipytune.load.records import Record

_FEWEST = 20  # requests, below which a trend is no finding
_CLEAR = 3.0  # standard errors
_GROWTH = 0.5  # of the mean, over the window
_GAIN = 1.05  # tokens per second that more users must bring
_MORE = 1.3  # times as many users, from which on more tokens are expected


def falls_behind(records: Sequence[Record], window: Window) -> str | None:
    """A sentence when in an open loop the queue at the server grows, else None."""
    good = sorted((r for r in records if r.measured and r.sent and r.times), key=lambda record: record.sent)
    good = [record for record in good if window.begin <= record.sent <= window.end]
    if len(good) < _FEWEST:
        return None
    # At first requests in flight grow under every load, until the first answers are complete.
    filled = window.begin + int(percentile(sorted(r.e2e or 0.0 for r in good), 50) * 1e9)
    steady = [record for record in good if record.sent >= filled]
    if len(steady) < _FEWEST:
        steady = good
    at = [(record.sent - window.begin) * 1e-9 for record in steady]
    flying = _in_flight(records, steady)
    waits = [record.ttft or 0.0 for record in steady]
    if not (_grows(at, flying) and _grows(at, waits)):
        return None
    third = max(len(steady) // 3, 1)
    return (
        f"requests in flight grew from {_mean(flying[:third]):.0f} to {_mean(flying[-third:]):.0f} and TTFT from "
        f"{seconds(_mean(waits[:third]))} to {seconds(_mean(waits[-third:]))} while the rate stayed"
    )


def levels_off(before: tuple[Load, Numbers] | None, load: Load, numbers: Numbers) -> str | None:
    """A sentence when in a closed loop more users than in the step before bring no more tokens, else None."""
    if before is None or load.kind != "closed" or load.value < _MORE * before[0].value:
        return None
    was, now = before[1].output_tokens_per_second, numbers.output_tokens_per_second
    if was <= 0 or now >= _GAIN * was:
        return None
    return f"{load.value:g} users at once bring {now:.0f} tokens/s, {before[0].value:g} brought {was:.0f}"


def misses(numbers: Numbers, good_share: float | None) -> str | None:
    """A sentence when fewer requests meet the objectives than the plan wants, else None."""
    if good_share is None or numbers.good_share is None or numbers.good_share >= good_share:
        return None
    return f"{numbers.good_share:.0%} of the requests met the objectives, less than {good_share:.0%}"


def _grows(at: Sequence[float], values: Sequence[float]) -> bool:
    rise, error = slope(at, values)
    return rise > _CLEAR * error and rise * (at[-1] - at[0]) > _GROWTH * _mean(values)


def _in_flight(records: Sequence[Record], at: Sequence[Record]) -> list[float]:
    """Requests in flight at the moments at which those of `at`, in order, were sent."""
    sent = sorted(record.sent for record in records if record.sent)
    ended = sorted(record.ended for record in records if record.sent)
    found = []
    begun = over = 0
    for record in at:
        while begun < len(sent) and sent[begun] <= record.sent:
            begun += 1
        while over < len(ended) and ended[over] <= record.sent:
            over += 1
        found.append(float(begun - over))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
