"""Waiting with a limit, without losing a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def within(doing: Awaitable[Result], seconds: float) -> Result:
    """As asyncio.wait_for: what `doing` gives, or asyncio.TimeoutError after it was cancelled and has ended.

    asyncio's own takes no notice of a cancellation that comes just as `doing` ends (cpython #86296, before Python
    3.12): a loop around it goes on, and a hub that shuts down waits for it for ever.
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


async def happened(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event came within so many seconds."""
    try:
        await within(event.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True


async def _end(task: asyncio.Future[Result]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # looked at: nobody else may
