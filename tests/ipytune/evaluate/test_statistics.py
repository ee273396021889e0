"""Intervals and tests against published numbers, against sums over all cases, and for what they promise."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.evaluate.statistics import (
    bootstrap_mean,
    differences_needed,
    holm,
    mcnemar,
    paired_shares,
    pairs_needed,
    permutation_test,
    sign_test,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe, Two-sided confidence intervals for the single proportion (1998), table I, score method.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 300), st.integers(0, 300))
def test_wilsons_interval_holds_the_share_and_stays_in_range(right: int, wrong: int) -> None:
    n = right + wrong
    low, high = wilson(right, n)
    assert 0 <= low <= (right / n if n else 0.5) <= high <= 1
    assert wilson(wrong, n) == pytest.approx((1 - high, 1 - low))


def test_a_share_that_is_none_is_refused() -> None:
    for right, n in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="is no share"):
            wilson(right, n)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_the_sum_over_all_outcomes(wins: int, losses: int) -> None:
    n, fewer = wins + losses, min(wins, losses)
    tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(fewer + 1))
    assert sign_test(wins, losses) == pytest.approx(float(min(Fraction(1), 2 * tail)))


def test_large_counts_have_a_p_value_too() -> None:
    assert sign_test(3000, 2000) < 1e-40
    assert 0 <= sign_test(30_000, 10) < 1e-300
    assert sign_test(60_100, 60_000) == pytest.approx(sign_test(30_050, 29_950), abs=0.1)
    # The normal curve takes over at 100,000 and must meet the exact sum there.
    assert sign_test(50_200, 49_801) == pytest.approx(sign_test(50_198, 49_799), rel=0.001)


def test_mcnemars_exact_p_is_the_textbooks() -> None:
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(0, 0) == 1.0
    with pytest.raises(ValueError, match="no counts"):
        mcnemar(-1, 3)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_the_interval_of_a_difference_holds_it_and_turns_with_the_sides(a: int, b: int, c: int, d: int) -> None:
    low, high = paired_shares(a, b, c, d)
    n = a + b + c + d
    assert -1 <= low <= ((b - c) / n if n else 0) <= high <= 1
    assert paired_shares(a, c, b, d) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("one", "other"), [(0.9, 0.8), (0.5, 0.5), (0.97, 0.9)])
def test_the_interval_of_a_difference_covers_it_as_often_as_it_says(one: float, other: float) -> None:
    """Two models over 80 questions of which each is hard for both or for none: paired, as in life."""
    generator, covered, runs = random.Random(1), 0, 600
    for _ in range(runs):
        cells = [0, 0, 0, 0]
        for _ in range(80):
            luck = generator.random()
            right = luck < one
            same = generator.random() < 0.5
            right_too = luck < other if same else generator.random() < other
            cells[(0 if right_too else 1) if right else (2 if right_too else 3)] += 1
        low, high = paired_shares(*cells)
        covered += low <= one - other <= high
    assert 0.925 <= covered / runs <= 0.99


def test_the_bootstrap_is_seeded_and_near_the_normal_interval() -> None:
    values = np.random.default_rng(7).normal(0.6, 0.1, 400).tolist()
    low, high = bootstrap_mean(values, seed=3)
    assert (low, high) == bootstrap_mean(values, seed=3)
    assert (low, high) != bootstrap_mean(values, seed=4)
    half = 1.96 * np.std(values, ddof=1) / 20
    mean = float(np.mean(values))
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.002)


def test_the_bootstrap_leans_to_the_long_tail() -> None:
    values = np.random.default_rng(1).exponential(1.0, 60)
    low, high = bootstrap_mean(values.tolist())
    mean = float(values.mean())
    assert low < mean < high and high - mean > mean - low


def test_values_without_spread_and_many_values() -> None:
    assert bootstrap_mean([0.5]) == bootstrap_mean([0.5] * 9) == (0.5, 0.5)
    low, high = bootstrap_mean([0.0, 1.0] * 15_000)
    assert (low, high) == pytest.approx((0.5 - 0.00566, 0.5 + 0.00566), abs=1e-4)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([])


@given(st.lists(st.integers(-5, 5).map(lambda i: i / 5), min_size=1, max_size=9))
def test_the_permutation_test_tries_all_signs_of_few_differences(gaps: list[float]) -> None:
    moved = [gap for gap in gaps if gap]
    outcomes = [
        abs(sum(s * g for s, g in zip(signs, moved, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(moved))
    ]
    expected = sum(outcome >= abs(sum(moved)) - 1e-9 for outcome in outcomes) / len(outcomes)
    assert permutation_test(gaps) == pytest.approx(expected)


def test_the_permutation_test_of_many_differences_is_sampled_and_seeded() -> None:
    gaps = np.random.default_rng(2).normal(0.05, 0.2, 200).tolist()
    p = permutation_test(gaps, seed=1)
    assert p == permutation_test(gaps, seed=1)
    assert p == pytest.approx(2 * (1 - _normal(abs(sum(gaps)) / math.sqrt(sum(g * g for g in gaps)))), abs=0.01)
    assert permutation_test([0.1] * 100) == pytest.approx(1 / 10_001)
    assert permutation_test([0.0] * 5) == 1.0


def _normal(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def test_holm_is_the_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [corrected[i] for i in order] == sorted(corrected)


def test_so_many_questions_really_show_the_difference() -> None:
    n = pairs_needed(0.1, 0.3)
    generator, shown, runs = np.random.default_rng(5), 0, 400
    for _ in range(runs):
        better, worse, _ = generator.multinomial(n, [0.2, 0.1, 0.7])
        shown += mcnemar(int(better), int(worse)) < 0.05
    assert 0.7 <= shown / runs <= 0.87
    assert differences_needed(0.05, 0.2) == pytest.approx((2.8016 * 4) ** 2, abs=1)
    assert pairs_needed(-0.1, 0.3) == n
