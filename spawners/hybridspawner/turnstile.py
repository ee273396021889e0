"""Starts go one after another through JupyterHub's book-keeping: a class that starts at once stops nobody else.

For each start JupyterHub writes its tables half a dozen times in one go of the event loop: about 50 ms in which it
answers nothing else. A hundred of them at the same time would keep every other request waiting for seconds. Here each
waits for its turn, and between two turns is a pause for all others (benchmarks/start_overhead.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PAUSE = 0.02  # seconds between two turns, for everything else that the hub does
LONGEST = 1.0  # seconds after which the next one goes through whatever this one does


class Turn:
    """One request's turn: `over` ends it, as often as it is called."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock, self._over = lock, False
        self._timer = asyncio.get_running_loop().call_later(LONGEST, self.over)

    def over(self) -> None:
        if not self._over:
            self._over = True
            self._timer.cancel()
            self._leaving = asyncio.ensure_future(self._leave())

    async def _leave(self) -> None:
        try:
            await asyncio.sleep(PAUSE)
        finally:
            self._lock.release()


class TakesTurns:
    """A handler that starts sessions, first come, first served. The spawner that takes over calls `taken_over`."""

    _lock = asyncio.Lock()  # of the hub
    _turn: Turn | None = None

    async def in_turn(self, answer: Callable[[], Awaitable[None]]) -> None:
        await self._lock.acquire()
        self._turn = Turn(self._lock)
        try:
            await answer()
        finally:
            self._turn.over()

    def taken_over(self) -> None:
        if self._turn is not None:
            self._turn.over()
