"""Bandwidths are measured as they are defined, all-reduces end in right sums, and limits apply where they are meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.node import allreduce, bandwidth
from ipytune.node.thresholds import PAYLOAD, bus_bandwidth, judge


def test_copy_moves_two_arrays_and_triad_three() -> None:
    copy, triad = bandwidth.stream("cpu", array_bytes=2**20, passes=2)
    assert (copy.kernel, triad.kernel) == ("copy", "triad")
    assert copy.gb_per_second == pytest.approx(2 * 2**20 / copy.seconds / 1e9)
    assert triad.gb_per_second == pytest.approx(3 * 2**20 / triad.seconds / 1e9)


def test_sizes_are_measured_in_their_order() -> None:
    found = bandwidth.by_size([2**12, 2**16], seconds=0.01)
    assert [one.bytes for one in found] == [2**12, 2**16]
    assert all(one.gb_per_second > 0 for one in found)


def test_no_array_is_refused() -> None:
    with pytest.raises(ValueError, match="array_bytes"):
        bandwidth.stream(array_bytes=0)


@given(st.integers(2, 1000), st.integers(1, 10**12), st.floats(1e-6, 1e3))
def test_bus_bandwidth_is_between_one_and_two_payloads_a_time(processes: int, payload: int, seconds: float) -> None:
    simple = payload / seconds / 1e9
    assert simple * 0.999 <= bus_bandwidth(payload, seconds, processes) < 2 * simple


@pytest.mark.parametrize(("processes", "payload", "seconds"), [(1, 8, 1.0), (2, 0, 1.0), (2, 8, 0.0)])
def test_what_is_no_measurement_is_refused(processes: int, payload: int, seconds: float) -> None:
    with pytest.raises(ValueError):
        bus_bandwidth(payload, seconds, processes)


def test_limits_by_the_set_of_processes() -> None:
    assert judge(260.0, PAYLOAD, 4, 1, "nccl").passed is True
    assert judge(249.0, PAYLOAD, 4, 1, "nccl").passed is False
    assert judge(20.0, PAYLOAD, 2, 2, "nccl").passed is True  # one GPU of each of two nodes
    assert judge(20.0, PAYLOAD, 8, 2, "nccl").passed is False
    assert "FAILED" in str(judge(20.0, PAYLOAD, 8, 2, "nccl"))


def test_limits_are_not_applied_to_a_cpu_or_to_less() -> None:
    assert judge(1.0, PAYLOAD, 2, 1, "gloo").passed is None
    assert judge(1.0, PAYLOAD // 8, 4, 1, "nccl").passed is None
    assert "1 GB" in str(judge(1.0, PAYLOAD // 8, 4, 1, "nccl"))


def test_two_processes_sum_over_gloo() -> None:
    found = allreduce.measure(2, [0.1, 1], repeats=2)
    assert (found.backend, found.processes, found.nodes) == ("gloo", 2, 1)
    assert [size.bytes for size in found.sizes] == [100_000, 1_000_000]
    assert found.largest.gb_per_second == pytest.approx(bus_bandwidth(10**6, found.largest.seconds, 2))
    assert found.verdict().passed is None


def test_what_the_processes_printed_is_in_the_error() -> None:
    with pytest.raises(allreduce.AllReduceFailed, match="over 0"):
        allreduce.measure(2, [-1])


def test_one_process_has_nobody_to_sum_with() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        allreduce.measure(1, [1])
