"""Waiting under a clock ends with the result, the time-out or the cancellation, whichever came, and loses none."""

from __future__ import annotations

import asyncio
import time

import pytest

from ipytune.endpoints import Endpoint, TimedOut, Timeouts
from ipytune.endpoints.clocks import Clock, Waiting, before, within

ENDPOINT = Endpoint(name="e", base_url="http://127.0.0.1:9", model="m")
WAITING = Waiting(ENDPOINT, Timeouts(connect=1, first_token=2, between_tokens=3, total=4))


async def answer(event: asyncio.Event) -> str:
    await event.wait()
    return "answer"


async def test_a_result_an_error_and_a_time_out() -> None:
    event = asyncio.Event()
    with pytest.raises(asyncio.TimeoutError):
        await within(answer(event), 0.01)
    event.set()
    assert await within(answer(event), 5) == "answer"

    async def broken() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await within(broken(), 5)


@pytest.mark.parametrize("rounds", range(4))
async def test_a_cancellation_that_comes_as_it_ends_is_not_lost(rounds: int) -> None:
    event = asyncio.Event()
    waiting = asyncio.ensure_future(within(answer(event), 10))
    for _ in range(3):
        await asyncio.sleep(0)
    event.set()
    for _ in range(rounds):
        await asyncio.sleep(0)
    was_over = waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() or was_over


async def test_what_is_given_up_has_ended_before_it_returns() -> None:
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(asyncio.TimeoutError):
        await within(slow(), 0.01)
    assert ended == [True]


@pytest.mark.parametrize(
    ("due", "deadline", "clock", "seconds"), [(0.01, 60, "first_token", "2 s"), (60, 0.01, "total", "4 s")]
)
async def test_the_clock_that_runs_out_first_is_told(due: float, deadline: float, clock: Clock, seconds: str) -> None:
    now = time.monotonic()
    with pytest.raises(TimedOut) as caught:
        await before(asyncio.Event().wait(), "first_token", now + due, now + deadline, WAITING)
    assert caught.value.clock == clock and seconds in caught.value.what
    assert caught.value.why and caught.value.remedy


@pytest.mark.parametrize("clock", ["connect", "first_token", "between_tokens", "total"])
def test_every_clock_names_the_endpoint_and_its_limit(clock: Clock) -> None:
    error = WAITING.timed_out(clock)
    assert "“e” (http://127.0.0.1:9)" in error.what and f"{getattr(WAITING.timeouts, clock):g} s" in error.what
