"""Starts go one after another through JupyterHub's book-keeping: a class that starts at once stops nobody else.

For each start JupyterHub writes its tables half a dozen times in one go of the event loop: about 50 ms in which it
answers nothing else. A hundred of them at the same time would keep every other request waiting for seconds. Here each
waits for its turn, on record and ready to be cancelled, until the one before it is with its target and the loop has
come to rest (benchmarks/start_overhead.py).
"""

from __future__ import annotations

import asyncio
import time

PAUSE = 0.02  # seconds between two turns, for everything else that the hub does
AT_REST = 0.02  # seconds by which a timer of the loop may be late; if it is later there is more to do first
PATIENCE = 0.3  # seconds after which the next one goes through though the loop is not at rest
LONGEST = 1.0  # seconds after which the next one goes through whatever this one does
HANDING_OVER = 0.25  # seconds of its turn that a start keeps while its target takes it: a slow target holds up nobody


class Turn:
    """One start's turn: `over` ends it, as often as it is called; it ends by itself after LONGEST."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock, self._over = lock, False
        self._timer = asyncio.get_running_loop().call_later(LONGEST, self.over)

    def booked(self) -> None:
        """The hub's books are done; what is left of the turn is for the target to take the session."""
        if not self._over:
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(HANDING_OVER, self.over)

    def over(self) -> None:
        if not self._over:
            self._over = True
            self._timer.cancel()
            self._resting = asyncio.ensure_future(self._rest())

    async def _rest(self) -> None:
        """Let the next one through once everybody else has been served."""
        began = time.monotonic()
        try:
            late = AT_REST
            while late >= AT_REST and time.monotonic() - began < PATIENCE:
                asked = time.monotonic()
                await asyncio.sleep(PAUSE)
                late = time.monotonic() - asked - PAUSE
        finally:
            self._lock.release()


class Turnstile:
    """First come, first served."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def turn(self) -> Turn:
        """Wait for the turns of those who came before. Who is cancelled while waiting takes none."""
        await self._lock.acquire()
        return Turn(self._lock)
