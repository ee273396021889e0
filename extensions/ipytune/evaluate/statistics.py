"""How sure a measured difference is: intervals, paired tests, correction for several, rows that would be needed. Pure.

The unit is the question: repeats of one question are no further evidence about other questions, so they are averaged
before anything here sees them. Shares and values are 0 to 1. Sources: Wilson 1927; Newcombe 1998 (Statistics in
Medicine 17:2635, method 10) for the difference of paired shares; McNemar 1947, exact; Efron 1987 (BCa); Holm 1979;
Connor 1987 for the number of pairs. numpy is imported where it is used: the command line imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

CONFIDENCE = 0.95
RESAMPLES = 10_000
_CHUNK = 2_000_000  # random numbers held at once
_MANY = 20_000  # questions from which on the mean is normal enough, and resampling only slow
_EXACT_SIGNS = 14  # differences up to which all 2^n signs are tried


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def wilson(right: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share; (0, 1) for no trials. Raises ValueError unless 0 <= right <= n."""
    if not 0 <= right <= n:
        raise ValueError(f"{right} of {n} is no share.")
    if n == 0:
        return Interval(0.0, 1.0)
    z = _z(confidence)
    share, spread = right / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return Interval(0.0 if right == 0 else centre - half, 1.0 if right == n else centre + half)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p that so uneven a count came from a fair coin; ties are left out. 1 for no trials."""
    if wins < 0 or losses < 0:
        raise ValueError(f"{wins} wins and {losses} losses are no counts.")
    n, fewer = wins + losses, min(wins, losses)
    if n > 100_000:  # the exact sum takes integers of n bits; the normal curve agrees to many digits here
        return min(1.0, 2 * NormalDist().cdf((fewer + 0.5 - n / 2) / math.sqrt(n / 4)))
    term = total = 1
    for i in range(fewer):
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, 2 * total / (1 << n))


def mcnemar(only_one: int, only_other: int) -> float:
    """Exact McNemar test: two-sided p from the questions that just one of two models got right."""
    return sign_test(only_one, only_other)


def paired_shares(both: int, only_one: int, only_other: int, neither: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of share(one) - share(other) on the same questions; Newcombe's method 10. (-1, 1) for no questions."""
    n = both + only_one + only_other + neither
    if n == 0:
        return Interval(-1.0, 1.0)
    one, other = (both + only_one) / n, (both + only_other) / n
    low_one, high_one = wilson(both + only_one, n, confidence)
    low_other, high_other = wilson(both + only_other, n, confidence)
    margins = (both + only_one) * (only_other + neither) * (both + only_other) * (only_one + neither)
    product = float(both * neither - only_one * only_other)
    if product > 0:
        product = max(product - n / 2, 0.0)  # the continuity correction of method 10
    phi = product / math.sqrt(margins) if margins else 0.0
    down = _root((one - low_one) ** 2 - 2 * phi * (one - low_one) * (high_other - other) + (high_other - other) ** 2)
    up = _root((high_one - one) ** 2 - 2 * phi * (high_one - one) * (other - low_other) + (other - low_other) ** 2)
    return Interval(max(one - other - down, -1.0), min(one - other + up, 1.0))


def bootstrap_mean(
    values: Sequence[float], confidence: float = CONFIDENCE, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """BCa interval of the mean; the same for the same seed. Raises ValueError for no values.

    Values that are all equal have no spread to resample: the interval is that point, and means only that they agree.
    """
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("There are no values to take a mean of.")
    mean = float(array.mean())
    if array.size == 1 or float(np.ptp(array)) == 0.0:
        return Interval(mean, mean)
    if array.size > _MANY:
        half = _z(confidence) * float(array.std(ddof=1)) / math.sqrt(array.size)
        return Interval(mean - half, mean + half)
    means = np.sort(_resampled_means(array, seed, resamples))
    below = (float((means < mean).sum()) + float((means == mean).sum()) / 2) / resamples
    below = min(max(below, 0.5 / resamples), 1 - 0.5 / resamples)
    normal = NormalDist()
    bias = normal.inv_cdf(below)
    # The jackknife of a mean in closed form: leaving one out moves it by (mean - value) / (n - 1).
    moved = array - mean
    acceleration = float((moved**3).sum()) / (6 * float((moved**2).sum()) ** 1.5)
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + normal.inv_cdf(tail)
        ends.append(float(np.quantile(means, normal.cdf(bias + z / (1 - acceleration * z)))))
    return Interval(ends[0], ends[1])


def permutation_test(differences: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p that the mean of paired differences came from signs thrown by a coin; exact for few, else sampled."""
    import numpy as np

    array = np.asarray(differences, dtype=np.float64)
    array = array[array != 0]  # what does not differ has no sign
    n = array.size
    if n == 0:
        return 1.0
    observed = abs(float(array.sum())) - 1e-12 * float(np.abs(array).sum())
    if n <= _EXACT_SIGNS:
        signs = 1 - 2 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ array) >= observed).mean())
    if n > _MANY:
        return 2 * NormalDist().cdf(-abs(float(array.sum())) / math.sqrt(float((array**2).sum())))
    random, hits, rows = np.random.default_rng(seed), 0, max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        signs = random.integers(0, 2, (min(rows, resamples - start), n), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ array) >= observed).sum())
    return (hits + 1) / (resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for there being several, in their order: the chance of any false alarm stays below each."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = least
    return corrected


def pairs_needed(difference: float, disagreeing: float, power: float = 0.8, confidence: float = CONFIDENCE) -> int:
    """Questions that show a difference of shares with this power, if models disagree on this share of them (Connor)."""
    disagreeing = min(max(disagreeing, abs(difference)), 1.0)
    spread = _z(confidence) * math.sqrt(disagreeing)
    spread += NormalDist().inv_cdf(power) * math.sqrt(max(disagreeing - difference**2, 0.0))
    return _rows(spread / abs(difference))


def differences_needed(difference: float, deviation: float, power: float = 0.8, confidence: float = CONFIDENCE) -> int:
    """The same for scores, from the standard deviation of their paired differences."""
    return _rows((_z(confidence) + NormalDist().inv_cdf(power)) * deviation / abs(difference))


def _resampled_means(array: Array, seed: int, resamples: int) -> Array:
    import numpy as np

    random, rows = np.random.default_rng(seed), max(1, _CHUNK // array.size)
    parts = [
        array[random.integers(0, array.size, (min(rows, resamples - start), array.size))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)


def _rows(root: float) -> int:
    return max(math.ceil(root**2), 1)


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1, not at {confidence}.")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _root(square: float) -> float:
    return math.sqrt(max(square, 0.0))
