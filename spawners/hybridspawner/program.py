"""Starting a program from the event loop, so that a hub which is told to end in that very instant does end.

A hub that ends cancels all its tasks, also the one that asyncio keeps for the pipes of a program that just starts; then
asyncio waits for the end of that program for ever (seen with CPython 3.11: nobody wakes `_wait` of its transport).
"""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN = 0.2  # seconds between two cancellations of a start


async def start_program(*argv: str, **options: Any) -> asyncio.subprocess.Process:
    """As asyncio.create_subprocess_exec. Cancelled, it ends within moments and leaves no program running."""
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*argv, **options))
    try:
        await asyncio.wait({starting})
    except asyncio.CancelledError:
        while not starting.done():
            starting.cancel()
            await asyncio.wait({starting}, timeout=AGAIN)
        if not starting.cancelled() and starting.exception() is None:
            kill(starting.result())
        raise
    return starting.result()


def kill(process: asyncio.subprocess.Process) -> None:
    """End it now, unless it has ended."""
    if process.returncode is None:
        try:
            process.kill()
        except (ProcessLookupError, PermissionError):
            pass  # sudo is root's: what it runs for us ends by its own clock (slurm/launcher.py)
