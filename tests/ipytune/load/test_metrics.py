"""The numbers of a step, by hand: what is counted, over what, and what is left out."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.load.metrics import Window, concurrency, meets, summarise, window_of
from ipytune.load.numbers import Distribution, percentile, slope
from ipytune.load.plan import Objectives
from ipytune.load.records import Kind, Record

SECOND = 1_000_000_000


def _answer(sent: float, times: list[float], tokens: int | None = None, **fields: object) -> Record:
    moments = array("q", (round(time * SECOND) for time in times))
    at = round(sent * SECOND)
    made = Record(0, due=at, begun=at, sent=at, ended=moments[-1], times=moments, output_tokens=tokens)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _window(begin: float, end: float) -> Window:
    return Window(round(begin * SECOND), round(end * SECOND))


def test_tpot_is_over_the_tokens_after_the_first_whatever_the_chunks() -> None:
    record = _answer(1, [1.5, 2.0, 2.5], tokens=11)
    assert record.tpot == pytest.approx(0.1)
    assert record.gaps == pytest.approx([0.5, 0.5])
    assert _answer(1, [1.5], tokens=1).tpot is None


def test_numbers_of_two_answers_in_a_window() -> None:
    records = [_answer(1, [1.5, 2.0, 2.5], tokens=3), _answer(2, [2.2, 3.0], tokens=2)]
    numbers = summarise(records, _window(1, 3), Objectives(ttft=0.3))
    assert (numbers.measured, numbers.succeeded, numbers.failed) == (2, 2, 0)
    assert numbers.ttft.p50 == pytest.approx(0.35)
    assert numbers.itl.n == 3
    assert numbers.output_tokens_per_second == pytest.approx(2.5)
    assert numbers.requests_per_second == pytest.approx(1.0)
    assert (numbers.goodput, numbers.good_share) == (pytest.approx(0.5), pytest.approx(0.5))
    assert numbers.concurrency_mean == pytest.approx((1.5 + 1) / 2) and numbers.concurrency_max == 2
    assert not numbers.chunks_hold_several and numbers.gap_name == "ITL"


def test_chunks_of_several_tokens_are_named_so_and_count_as_many() -> None:
    numbers = summarise([_answer(0, [1, 2, 3, 4], tokens=12)], _window(0, 3.5), Objectives())
    assert numbers.chunks_hold_several and numbers.gap_name == "inter-chunk latency"
    assert numbers.tokens_per_chunk == 3
    assert numbers.output_tokens_per_second == pytest.approx(9 / 3.5)


def test_without_usage_chunks_are_counted_and_the_result_says_so() -> None:
    numbers = summarise([_answer(0, [1, 2])], _window(0, 2), Objectives())
    assert numbers.tokens_estimated and numbers.output_tokens_mean == 2
    assert numbers.goodput is None


def test_failures_are_apart_by_kind_and_miss_every_objective() -> None:
    refused = [Record(index=i, begun=1, sent=1, ended=2).failed("HTTP 429", f"words {i}") for i in range(3)]
    records = [_answer(0, [1.0], tokens=1), *refused]
    records.append(_answer(0, [1.0]).failed(Kind.UNFINISHED, "The measurement ended first."))
    numbers = summarise(records, _window(0, 2), Objectives(ttft=10))
    assert (numbers.measured, numbers.succeeded, numbers.failed, numbers.unfinished) == (5, 1, 3, 1)
    assert [(one.kind, one.count, one.example) for one in numbers.failures] == [("HTTP 429", 3, "words 0")]
    assert numbers.ttft.n == 1 and numbers.good_share == pytest.approx(0.2)


def test_warm_up_is_in_no_distribution_but_its_tokens_load_the_server() -> None:
    records = [_answer(0.1, [1.0, 2.0], tokens=2, measured=False), _answer(1, [1.5, 2.0], tokens=2)]
    numbers = summarise(records, _window(1, 2), Objectives())
    assert numbers.measured == 1 and numbers.ttft.n == 1
    assert numbers.output_tokens_per_second == pytest.approx(4.0)
    assert numbers.concurrency_mean == pytest.approx(2.0)


def test_nothing_measured_gives_empty_numbers() -> None:
    numbers = summarise([], Window(0, 0), Objectives(ttft=1))
    assert numbers.measured == 0 and numbers.ttft == Distribution() and numbers.output_tokens_per_second == 0


def test_the_objectives_are_each_met_or_not() -> None:
    record = _answer(0, [0.4, 0.5, 0.6], tokens=3)
    assert meets(record, Objectives()) and meets(record, Objectives(ttft=0.401, tpot=0.1001, e2e=0.601))
    assert not meets(record, Objectives(ttft=0.39))
    assert not meets(record, Objectives(tpot=0.09))
    assert not meets(record, Objectives(e2e=0.5))


def test_the_window_of_several_processes_is_what_they_share() -> None:
    assert window_of([], [5, 7], [20, 18]) == Window(7, 18)
    assert window_of([Record(0, sent=6, ended=9)], [5, 6], [0, 0]) == Window(5, 9)
    assert window_of([], [0, 0], [0, 0]) == Window(0, 0)


def test_without_a_duration_the_window_ends_with_the_last_request_sent() -> None:
    steady = [Record(index=i, sent=10 * i + 1, ended=10 * i + 12) for i in range(10)]
    assert window_of(steady, [1], [0]) == Window(1, 91)
    at_once = [Record(index=i, sent=1, ended=100) for i in range(3)]
    assert window_of(at_once, [1], [0]) == Window(1, 100)


def test_concurrency_counts_only_what_is_within_the_window() -> None:
    records = [Record(0, sent=10, ended=30), Record(1, sent=20, ended=90), Record(2, sent=95, ended=99)]
    assert concurrency(records, Window(20, 40)) == (1.5, 2)


def test_no_percentile_that_only_renames_the_largest() -> None:
    ten = Distribution.of([float(i) for i in range(10)])
    assert ten.p90 is not None and ten.p95 is None and ten.p99 is None and ten.max == 9
    assert Distribution.of([1.0] * 99).p99 is None
    assert Distribution.of([1.0] * 100).p99 == 1.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0, 100))
def test_a_percentile_lies_within_the_values_and_grows(values: list[float], share: float) -> None:
    ordered = sorted(values)
    assert ordered[0] - 1e-6 <= percentile(ordered, share) <= ordered[-1] + 1e-6
    assert percentile(ordered, share / 2) <= percentile(ordered, share) + 1e-6


def test_percentiles_are_those_of_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    values = [0.3, 1.5, 2.25, 7.0, 7.5, 11.0, 0.01]
    for share in (0, 10, 50, 90, 99, 100):
        assert percentile(sorted(values), share) == pytest.approx(float(numpy.percentile(values, share)))


def test_a_slope_and_its_error() -> None:
    rise, error = slope([0, 1, 2, 3], [1, 3, 5, 7])
    assert rise == pytest.approx(2) and error == pytest.approx(0, abs=1e-9)
    assert slope([1, 1, 1], [1, 2, 3])[0] == 0
