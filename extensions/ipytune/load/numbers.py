"""Percentiles and slopes, each in one place. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class Distribution(BaseModel):
    """Of one quantity, in its own unit (seconds). A percentile is None below the number of samples that it needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = 0
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution:
        ordered = sorted(values)
        if not ordered:
            return cls()

        def known(share: float) -> float | None:
            # Below this no sample lies above the percentile: it would be the largest under another name.
            return percentile(ordered, share) if len(ordered) >= round(100 / (100 - share)) else None

        return cls(
            n=len(ordered),
            mean=math.fsum(ordered) / len(ordered),
            p50=percentile(ordered, 50),
            p90=known(90),
            p95=known(95),
            p99=known(99),
            max=ordered[-1],
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of sorted values, none of them missing; linear between neighbours, as numpy's default.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50), percentile([7.0], 99)
    (2.5, 7.0)
    """
    at = (len(ordered) - 1) * share / 100
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def slope(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Least squares: (slope, its standard error). (0, inf) where there is nothing to tell."""
    n = len(xs)
    if n < 3:
        return 0.0, math.inf
    mean_x, mean_y = math.fsum(xs) / n, math.fsum(ys) / n
    spread = math.fsum((x - mean_x) ** 2 for x in xs)
    if spread == 0:
        return 0.0, math.inf
    rise = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = math.fsum((y - mean_y - rise * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    return rise, math.sqrt(rest / (n - 2) / spread)
