"""Waiting with a limit ends with the result, the time-out or the cancellation, whichever came, and loses none."""

import asyncio

import pytest

from hybridspawner.within import within


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
    await asyncio.sleep(0.01)
    event.set()
    for _ in range(rounds):
        await asyncio.sleep(0)
    was_over = waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() or was_over


async def test_what_is_cancelled_has_ended_before_it_returns() -> None:
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
    waiting = asyncio.ensure_future(within(slow(), 10))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() and ended == [True, True]
