"""When schedulers expect to start a session: estimates, shared by all users who would ask the same question.

A question to a scheduler costs it something, so each is asked at most once per `fresh` seconds, however many pages are
open, and only `at_a_time` of them run together. Nobody waits for an answer longer than `patience` seconds: what comes
later is there for the next look. A failure is an unknown start, never an error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from .capacity import Estimate
from .site import Resources
from .within import within

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What an estimate depends on: the target and the shape of the job. Whoever pays shares it with the others."""

    target: str
    resources: Resources
    runtime: str
    partition: str | None
    reservation: str | None
    account: str | None


@dataclass(frozen=True)
class _Answer:
    start: float | None
    """time.time() of the expected start."""
    at: float
    """time.monotonic() of the question."""

    def estimate(self) -> Estimate | None:
        if self.start is None:
            return None
        return Estimate(max(0.0, self.start - time.time()), max(0.0, time.monotonic() - self.at))


class EstimateBoard:
    """The last answers, at most `size` of them. Times in seconds."""

    def __init__(self, fresh: float = 30, patience: float = 3, size: int = 256, at_a_time: int = 4) -> None:
        self._fresh, self._patience, self._size = fresh, patience, size
        self._last: OrderedDict[Question, _Answer] = OrderedDict()
        self._running: dict[Question, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(at_a_time)

    async def read(self, question: Question, ask: Callable[[], Awaitable[datetime | None]]) -> Estimate | None:
        """The estimate, asked for with `ask` if there is no fresh one; None when unknown or not answered in time."""
        last = self._last.get(question)
        if last is None or time.monotonic() - last.at >= self._fresh:
            task = self._running.get(question)
            if task is None:
                if len(self._running) >= self._size:
                    return None
                task = self._running[question] = asyncio.create_task(self._query(question, ask))
                task.add_done_callback(lambda _: self._running.pop(question, None))
            await asyncio.wait({task}, timeout=self._patience)
            last = self._last.get(question)
        return last.estimate() if last is not None else None

    async def _query(self, question: Question, ask: Callable[[], Awaitable[datetime | None]]) -> None:
        async with self._turn:
            at, start = time.monotonic(), None
            try:
                expected = await within(ask(), self._fresh)
                start = expected.timestamp() if expected is not None else None
            except Exception as error:
                log.info("No estimate for %s: %s", question.target, error or type(error).__name__)
            self._last[question] = _Answer(start, at)
            self._last.move_to_end(question)
            while len(self._last) > self._size:
                self._last.popitem(last=False)
