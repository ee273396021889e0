"""Leases: what is allowed, and when one lapses."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridspawner.lease import LOOK_SECONDS, Leases, lease_of
from hybridspawner.request import LONGEST_LEASE, SHORTEST_LEASE, InvalidRequest, validate
from tests.hybridspawner.sites import site

SITE = site()
RUN = (1, "run-1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pass_time(leases: Leases, clock: Clock, seconds: float) -> list[Any]:
    """What has lapsed after so many seconds in which somebody looked all the time."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now = min(end, clock.now + LOOK_SECONDS)
        lapsed = leases.look()
    return lapsed


@pytest.mark.parametrize(("text", "seconds"), [("00:00:30", 30), ("00:02:00", 120), ("01:00:00", 3600)])
def test_a_lease_has_half_a_minute_to_an_hour(text: str, seconds: int) -> None:
    assert validate({"lease": text}, SITE).lease == text
    assert lease_of({"lease": text}) == seconds


@pytest.mark.parametrize("text", ["00:00:29", "01:00:01", "2:00", "120", "", "00:00:00", "1-00:00:00", "\ud800"])
def test_any_other_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^lease: .* Allowed: HH:MM:SS, 00:00:30 to 01:00:00\.$"):
        validate({"lease": text}, SITE)
    assert lease_of({"lease": text}) is None


def test_without_one_there_is_none() -> None:
    assert validate({}, SITE).lease is None and validate({"lease": None}, SITE).lease is None


@given(st.none() | st.text() | st.dictionaries(st.just("lease") | st.text(), st.none() | st.integers() | st.text()))
def test_stale_stored_options_are_no_lease_and_no_fault(options: Any) -> None:
    assert lease_of(options) is None or SHORTEST_LEASE <= (lease_of(options) or 0) <= LONGEST_LEASE


def test_it_lapses_when_nobody_renewed_it_for_its_time() -> None:
    clock = Clock()
    leases = Leases(clock)
    leases.begin(RUN, 30)
    assert pass_time(leases, clock, 30) == []
    assert leases.renew(RUN) == 30
    assert pass_time(leases, clock, 30) == []
    assert pass_time(leases, clock, 1) == [RUN] and leases.has_lapsed(RUN)


def test_a_lapse_is_told_until_it_is_over_and_cannot_be_taken_back() -> None:
    clock = Clock()
    leases = Leases(clock)
    leases.begin(RUN, 30)
    pass_time(leases, clock, 31)
    assert leases.renew(RUN) is None
    assert leases.look() == leases.look() == [RUN]
    assert leases.say_once(RUN) and not leases.say_once(RUN)
    leases.over(RUN)
    assert leases.look() == [] and RUN not in leases


def test_a_session_that_is_started_anew_begins_its_lease_anew() -> None:
    clock = Clock()
    leases = Leases(clock)
    leases.begin(RUN, 30)
    pass_time(leases, clock, 31)
    leases.begin(RUN, 60)
    assert not leases.has_lapsed(RUN) and pass_time(leases, clock, 60) == []
    leases.begin(RUN, None)  # started by hand: without
    assert leases.renew(RUN) is None and pass_time(leases, clock, 600) == [] and len(leases) == 0


def test_time_in_which_the_hub_stood_still_is_given_back() -> None:
    clock = Clock()
    leases = Leases(clock)
    leases.begin(RUN, 30)
    leases.look()
    clock.now += 500
    assert leases.look() == []
    assert pass_time(leases, clock, 31) == [RUN]


steps = st.lists(st.tuples(st.sampled_from(["renew", "wait"]), st.floats(0.1, 50)), max_size=20)


@given(st.integers(SHORTEST_LEASE, 120), steps)
def test_it_lapses_if_and_only_if_a_renewal_was_late(seconds: int, steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    leases = Leases(clock)
    leases.begin(RUN, seconds)
    leases.look()
    last, late = clock.now, False
    for step, wait in steps:
        pass_time(leases, clock, wait)
        late = late or clock.now - last > seconds
        assert (leases.look() == [RUN]) == late
        if step == "renew":
            assert (leases.renew(RUN) is None) == late
            last = clock.now
