"""The loss curve as it is sent and drawn: smoothed, thinned to a fixed size, packed; the marks of its axes. Pure.

A long run has more steps than a screen has pixels, and a list that grows must not be sent again with every step, so
what goes to the browser has at most LIMIT points, whatever the length of the run: 12 bytes each.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

LIMIT = 600


class Point(NamedTuple):
    step: int
    loss: float
    smooth: float


def smoothed(steps: Sequence[int], losses: Sequence[float], weight: float = 0.9) -> list[Point]:
    """Exponential moving average, corrected for its start so that the first points are not drawn towards zero.

    A loss that is not finite leaves the average as it was: one bad step must not wipe out the rest of the line.
    """
    points = []
    total = norm = 0.0
    for step, loss in zip(steps, losses, strict=True):
        if math.isfinite(loss):
            total = weight * total + (1 - weight) * loss
            norm = weight * norm + (1 - weight)
        points.append(Point(step, loss, total / norm if norm else math.nan))
    return points


def thinned(points: Sequence[Point], limit: int = LIMIT) -> list[Point]:
    """At most `limit` points: the ends, and each bucket's lowest and highest loss, so that no spike is lost."""
    if len(points) <= limit:
        return list(points)
    first, middle, last = points[0], points[1:-1], points[-1]
    buckets = max((limit - 2) // 2, 1)
    kept = [first]
    for index in range(buckets):
        part = middle[index * len(middle) // buckets : (index + 1) * len(middle) // buckets]
        if part:
            # NaN compares false with everything; key it to the top so that it stays visible as a gap.
            low = min(part, key=lambda point: point.loss if math.isfinite(point.loss) else math.inf)
            high = max(part, key=lambda point: point.loss if math.isfinite(point.loss) else math.inf)
            kept.extend(sorted({low, high}))
    return [*kept, last]


def packed(points: Sequence[Point]) -> bytes:
    """Little-endian float32 triples (step, loss, smooth). Steps are exact up to 16.7 million."""
    return b"".join(struct.pack("<3f", point.step, point.loss, point.smooth) for point in points)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from low to high, about `count` of them.

    >>> ticks(0, 3.7), ticks(1, 200)
    ([0.0, 1.0, 2.0, 3.0], [50.0, 100.0, 150.0, 200.0])
    """
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    start = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(start, math.floor(high / step + 1e-9) + 1)]
