"""The four clocks of a request: how to wait under them without losing a cancellation, and their words at the end.

Sources for the limits: LiteLLM #4050 (streams stall after 200), aiohttp's 300 s total that cuts long answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal, TypeVar

from ipytune.endpoints.errors import TimedOut
from ipytune.endpoints.records import Endpoint

T = TypeVar("T")
Clock = Literal["connect", "first_token", "between_tokens", "total"]


@dataclass(frozen=True)
class Timeouts:
    """Seconds. first_token is long because it holds the queue, the model's loading and the reading of the prompt."""

    connect: float = 10.0
    first_token: float = 180.0
    between_tokens: float = 60.0
    total: float = 3600.0


async def within(doing: Awaitable[T], seconds: float) -> T:
    """What `doing` gives, or asyncio.TimeoutError after it was cancelled and has ended.

    asyncio.wait_for takes no notice of a cancellation that comes just as `doing` ends (cpython #86296, before Python
    3.12): a cancelled answer would go on, and whoever waits for its end would wait for ever.
    """
    task = asyncio.ensure_future(doing)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _end(task)
        raise
    if not done:
        await _end(task)
        if task.cancelled():
            raise asyncio.TimeoutError
    return task.result()


async def before(doing: Awaitable[T], clock: Clock, due: float, deadline: float, waiting: Waiting) -> T:
    """What `doing` gives, if it comes before `due`, a moment of the monotonic clock, and before the whole's deadline.

    Raises TimedOut with the clock that ran out first.
    """
    if deadline < due:
        clock, due = "total", deadline
    try:
        return await within(doing, max(due - time.monotonic(), 0.001))
    except asyncio.TimeoutError:  # noqa: UP041  (another class before Python 3.11)
        raise waiting.timed_out(clock) from None


@dataclass(frozen=True)
class Waiting:
    """For whom is waited, and how long at most."""

    endpoint: Endpoint
    timeouts: Timeouts

    def timed_out(self, clock: Clock) -> TimedOut:
        what, why, remedy = _WORDS[clock]
        where = f"“{self.endpoint.name}” ({self.endpoint.base_url})"
        seconds: float = getattr(self.timeouts, clock)
        return TimedOut(what.format(where=where, seconds=seconds), why, remedy, clock=clock)


async def _end(task: asyncio.Future[T]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # looked at: nobody else may


_WORDS: dict[Clock, tuple[str, str, str]] = {
    "connect": (
        "No connection to {where} within {seconds:g} s.",
        "Nothing answered: the machine may be off, or a network policy drops the packets.",
        "Check host and port. From a pod, private addresses are closed unless the site opens them.",
    ),
    "first_token": (
        "{where} sent no token within {seconds:g} s.",
        "It accepted the request; its queue may be long, its model still loading, or the prompt very long.",
        "Ask again later, or allow more with Timeouts(first_token=…).",
    ),
    "between_tokens": (
        "{where} stopped writing for {seconds:g} s in the middle of its answer.",
        "The stream stalled though the connection is open.",
        "The part that came is kept. Ask again, or allow more with Timeouts(between_tokens=…).",
    ),
    "total": (
        "The answer of {where} took longer than {seconds:g} s in all.",
        "The limit for a whole answer was reached.",
        "Ask for fewer tokens (max_tokens), or allow more with Timeouts(total=…).",
    ),
}
