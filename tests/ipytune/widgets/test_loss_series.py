"""What is sent of a curve is bounded, keeps its extremes, and survives losses that are no numbers."""

from __future__ import annotations

import math
import struct

from hypothesis import given
from hypothesis import strategies as st

from ipytune.series import LIMIT, Point, packed, smoothed, thinned, ticks
from ipytune.widgets.picture import loss_svg

losses = st.lists(st.floats(0, 100) | st.just(math.nan), max_size=3000)


@given(losses)
def test_however_long_the_run_the_curve_is_bounded_and_ordered(values: list[float]) -> None:
    points = thinned(smoothed(range(1, len(values) + 1), values))
    assert len(points) <= LIMIT
    assert [p.step for p in points] == sorted({p.step for p in points})
    if values:
        assert (points[0].step, points[-1].step) == (1, len(values))
    assert len(packed(points)) == 12 * len(points)


def test_a_single_spike_in_a_long_run_is_kept() -> None:
    values = [1.0] * 50_000
    values[31_234] = 9.0
    assert max(p.loss for p in thinned(smoothed(range(50_000), values))) == 9.0


def test_the_average_starts_at_the_first_loss_and_skips_what_is_no_number() -> None:
    points = smoothed([1, 2, 3], [4.0, math.nan, 4.0])
    assert [round(p.smooth, 6) for p in points] == [4.0, 4.0, 4.0]


def test_points_are_packed_as_little_endian_floats() -> None:
    assert struct.unpack("<3f", packed([Point(7, 0.5, 0.25)])) == (7.0, 0.5, 0.25)


@given(losses)
def test_the_picture_can_always_be_drawn(values: list[float]) -> None:
    drawn = loss_svg(smoothed(range(len(values)), values), [(1, 0.5), (2, math.nan)])
    assert drawn == "" or (drawn.startswith("<svg") and "nan" not in drawn)


@given(st.floats(0, 1e6), st.floats(0.001, 1e6))
def test_ticks_are_few_and_within(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 10
    assert all(low - span * 0.01 <= tick <= low + span * 1.01 for tick in found)
