"""When requests are due follows from plan and seed alone, whoever sends them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.endpoints import BadRequest
from ipytune.load.arrivals import TraceRow, mean_rate, moments, ramped, read_trace, schedule, share_of
from ipytune.load.plan import Load, Plan


def test_a_constant_rate_comes_evenly_from_the_start() -> None:
    plan = Plan(rates=(4,), arrivals="constant", requests=3, warmup=0)
    assert [arrival.at for arrival in schedule(plan, Load("open", 4))] == [0, 0.25, 0.5]


def test_random_gaps_have_the_rate_as_their_mean_and_are_the_same_for_a_seed() -> None:
    plan = Plan(rates=(50,), seed=3)
    first = list(islice(moments(plan, 50), 5000))
    assert first == list(islice(moments(plan, 50), 5000))
    assert first != list(islice(moments(plan.model_copy(update={"seed": 4}), 50), 5000))
    assert first[-1] / 5000 == pytest.approx(1 / 50, rel=0.05)


def test_a_low_burstiness_bunches_and_a_high_one_evens_out() -> None:
    def spread(burstiness: float) -> float:
        at = list(islice(moments(Plan(rates=(10,), burstiness=burstiness), 10), 4000))
        gaps = [later - earlier for earlier, later in zip(at, at[1:], strict=False)]
        mean = sum(gaps) / len(gaps)
        return sum((gap - mean) ** 2 for gap in gaps) / len(gaps) / mean**2

    assert spread(0.25) > 2 * spread(1.0) > 4 * spread(10.0)


def test_warm_up_and_ramp_are_sent_but_not_measured_and_the_duration_counts_after_them() -> None:
    plan = Plan(rates=(10,), arrivals="constant", duration=2, warmup=3, ramp=1)
    arrivals = list(schedule(plan, Load("open", 10)))
    measured = [arrival for arrival in arrivals if arrival.measured]
    assert all(arrival.at >= 1 and arrival.index >= 3 for arrival in measured)
    assert len(measured) == 20
    assert measured[-1].at - measured[0].at < 2


@given(st.floats(0.001, 50), st.floats(0, 20), st.floats(0, 20))
def test_a_ramp_keeps_the_order_and_delays_by_half_its_length_in_the_end(ramp: float, one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert ramped(early, ramp) <= ramped(late, ramp) + 1e-9
    assert ramped(ramp, ramp) == pytest.approx(1.5 * ramp)


@given(st.integers(0, 10_000), st.integers(1, 16))
def test_the_shares_of_all_processes_make_the_whole(total: int, of: int) -> None:
    assert sum(share_of(total, share, of) for share in range(of)) == total


def test_a_trace_is_read_in_the_order_of_its_moments_from_zero(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(
        '{"timestamp": 3000, "input_length": 5, "output_length": 2}\n\n'
        '{"timestamp": 1000, "input_length": 7, "output_length": 3, "hash_ids": [1]}\n'
    )
    rows = read_trace(file, scale=0.001)
    assert rows == (TraceRow(0.0, 7, 3), TraceRow(2.0, 5, 2))
    assert mean_rate(rows) == 0.5
    arrivals = list(schedule(Plan(trace=file), Load("trace", 0.5), rows))
    assert [(a.words, a.tokens, a.measured) for a in arrivals] == [(7, 3, True), (5, 2, True)]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "7",
        '{"timestamp": "x"}',
        '{"timestamp": 1, "input_length": 0, "output_length": 1}',
        '{"timestamp": NaN, "input_length": 1, "output_length": 1}',
    ],
)
def test_a_line_that_is_no_request_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text('{"timestamp": 1, "input_length": 1, "output_length": 1}\n' + line + "\n")
    with pytest.raises(BadRequest, match="Line 2"):
        read_trace(file)


def test_a_trace_that_is_not_there_or_empty_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read"):
        read_trace(tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(BadRequest, match="is empty"):
        read_trace(tmp_path / "empty")
