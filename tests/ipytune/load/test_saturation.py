"""A server that keeps up is not called saturated, and one that does not, is."""

from __future__ import annotations

import random
from array import array

from ipytune.load.metrics import Window, summarise
from ipytune.load.plan import Load, Objectives
from ipytune.load.records import Record
from ipytune.load.saturation import falls_behind, levels_off, misses
from ipytune.load.vitals import Vitals, reasons

SECOND = 1_000_000_000


def _queue(rate: float, service: float, seconds: float, seed: int = 1) -> list[Record]:
    """One server, one at a time, `service` seconds each; requests come at random at `rate`."""
    draw, at, free, records = random.Random(seed), 0.0, 0.0, []
    while at < seconds:
        at += draw.expovariate(rate)
        free = max(free, at) + service
        sent, first = round(at * SECOND), round((free - service / 2) * SECOND)
        times = array("q", [first, round(free * SECOND)])
        records.append(Record(len(records), due=sent, begun=sent, sent=sent, ended=times[-1], times=times))
    return records


def _window(seconds: float) -> Window:
    return Window(0, round(seconds * SECOND))


def test_a_growing_queue_is_found() -> None:
    found = falls_behind(_queue(rate=15, service=0.1, seconds=30), _window(30))
    assert found is not None and "requests in flight grew" in found


def test_a_steady_queue_is_none() -> None:
    assert not any(falls_behind(_queue(5, 0.1, 30, seed), _window(30)) for seed in range(20))


def test_few_requests_show_no_trend() -> None:
    assert falls_behind(_queue(2, 1, 5), _window(5)) is None
    assert falls_behind([], _window(5)) is None


def _step(tokens_per_second: float) -> Record:
    times = array("q", [SECOND, 2 * SECOND])
    return Record(0, sent=1, begun=1, due=1, ended=2 * SECOND, times=times, output_tokens=round(2 * tokens_per_second))


def test_more_users_that_bring_no_more_tokens_are_too_many() -> None:
    few = summarise([_step(100)], _window(2), Objectives())
    same, more = summarise([_step(102)], _window(2), Objectives()), summarise([_step(180)], _window(2), Objectives())
    assert levels_off((Load("closed", 4), few), Load("closed", 8), same) is not None
    assert levels_off((Load("closed", 4), few), Load("closed", 8), more) is None
    assert levels_off((Load("closed", 4), few), Load("closed", 5), same) is None
    assert levels_off(None, Load("closed", 8), same) is None


def test_too_few_good_requests_end_a_sweep() -> None:
    numbers = summarise([_step(5)], _window(2), Objectives(ttft=0.1))
    assert misses(numbers, 0.9) is not None
    assert misses(numbers, None) is None


def test_a_client_that_keeps_up_is_not_accused_and_one_that_does_not_is_told_why() -> None:
    assert reasons([Vitals((0.0005,) * 100, 3.0, 10.0)], [0.0001] * 200) == ()
    assert "late" in reasons([Vitals((0.02,) * 100, 3.0, 10.0)], [])[0]
    assert "after they were due" in reasons([Vitals((), 3.0, 10.0)], [0.5] * 10)[0]
    assert "95%" in reasons([Vitals((), 1.0, 10.0), Vitals((), 9.5, 10.0)], [])[0]
    assert "max_in_flight" in reasons([], [], in_flight_limit=True)[0]
