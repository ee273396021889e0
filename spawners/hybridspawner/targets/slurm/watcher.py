"""One watcher per cluster: a single query for all our jobs per interval, however many sessions there are.

It asks each second while something is about to change, every two seconds while jobs only wait (their end must be told
within three), every ten once everything runs, and backs off while the controller does not answer. A job's news is a
reading; or `ended`, with proof; or nothing new, because the controller is silent (`silent_since`). Nothing else in the
package asks Slurm about jobs.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass

from ...within import happened
from .client import JobReading, SlurmClient, SlurmError

log = logging.getLogger(__name__)

_RECENT = 30.0  # seconds for which a job is followed closely after it was submitted, called the hub or was cancelled


@dataclass(frozen=True)
class News:
    """The last that is known of a job. `at` is on time.monotonic()'s clock, in seconds."""

    reading: JobReading
    ended: bool
    at: float


class SlurmWatcher:
    """Follows the jobs that were given to `follow` until they end or `forget` is called. Intervals in seconds."""

    def __init__(
        self,
        client: SlurmClient,
        quick: float = 1.0,
        slow: float = 10.0,
        longest: float = 60.0,
        waiting: float = 2.0,
    ) -> None:
        self._client, self._quick, self._slow, self._longest = client, quick, slow, longest
        self._waiting = max(quick, waiting)
        self._asked: dict[str, float] = {}
        self._news: dict[str, News | None] = {}
        self._queue: dict[str, JobReading] = {}
        self._task: asyncio.Task[None] | None = None
        self._round = asyncio.Event()
        self._nudge = asyncio.Event()
        self.silent_since: float | None = None
        self.last_error = ""

    def follow(self, job_id: str) -> None:
        """Start to watch a job (again: no effect)."""
        if job_id not in self._news:
            self._news[job_id] = None
            self.hurry(job_id)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def forget(self, job_id: str) -> None:
        self._news.pop(job_id, None)
        self._asked.pop(job_id, None)

    def news(self, job_id: str) -> News | None:
        """What is known of a followed job; None before the first answer."""
        return self._news.get(job_id)

    def ahead(self, job_id: str) -> int | None:
        """How many waiting jobs of the same partition the scheduler ranks before this one; None if it is not told."""
        return ahead(self._queue, job_id)

    def hurry(self, job_id: str) -> None:
        """Ask soon, and often for a while: something is about to change for this job."""
        self._asked[job_id] = time.monotonic()
        self._nudge.set()

    async def next_round(self, timeout: float) -> None:
        """Return after the next query, answered or not, or after `timeout` seconds."""
        await happened(self._round, timeout)

    async def _run(self) -> None:
        failures = 0
        while self._news:
            self._nudge.clear()
            try:
                await self._ask()
                failures, self.silent_since, self.last_error = 0, None, ""
            except SlurmError as error:
                failures += 1
                self.silent_since = self.silent_since or time.monotonic()
                self.last_error = str(error)
                log.warning("Slurm does not answer (%s); all sessions are kept as they are", error)
            except Exception:
                failures += 1
                self.silent_since = self.silent_since or time.monotonic()
                self.last_error = "unexpected answer"
                log.exception("Cannot read Slurm's answer; all sessions are kept as they are")
            self._announce()
            await self._pause(failures)

    async def _pause(self, failures: int) -> None:
        """Wait for the interval or, unless Slurm is silent, for a nudge; never less than half the quick one."""
        if failures:
            await asyncio.sleep(min(self._quick * 2**failures, self._longest))
            return
        gap = self._quick / 2
        await asyncio.sleep(gap)
        await happened(self._nudge, self._interval() - gap)

    def _interval(self) -> float:
        """Quick while a job begins or was just asked about, slow once all run, in between while some only wait."""
        open_jobs = [(job_id, news) for job_id, news in self._news.items() if news is None or not news.ended]
        recently = time.monotonic() - _RECENT
        if any(
            news is None
            or self._asked.get(job_id, 0.0) > recently
            or not (news.reading.pending or news.reading.state == "RUNNING")
            for job_id, news in open_jobs
        ):
            return self._quick
        return self._waiting if any(news is not None and news.reading.pending for _, news in open_jobs) else self._slow

    async def _ask(self) -> None:
        wanted = [job_id for job_id, news in self._news.items() if news is None or not news.ended]
        if not wanted:
            return
        queue = await self._client.queue()
        # who has left the queue without a word: accounting tells how it ended, and has the last word on whether it did
        left = [job_id for job_id in wanted if job_id not in queue]
        records = await self._client.finished(left) if left else {}
        now = time.monotonic()
        for job_id in wanted:
            reading = queue.get(job_id) or records.get(job_id)
            ended = reading is None or reading.ended
            if job_id in self._news:  # not forgotten meanwhile
                self._news[job_id] = News(reading or JobReading(job_id, "GONE"), ended, now)
        self._queue = queue

    def _announce(self) -> None:
        self._round.set()
        self._round = asyncio.Event()


def ahead(queue: dict[str, JobReading], job_id: str) -> int | None:
    """Waiting jobs before `job_id` in its partitions, by priority, then by age. Held jobs (priority 0) do not count."""
    mine = queue.get(job_id)
    if mine is None or not mine.pending or not mine.priority:
        return None
    partitions = set(mine.partition.split(","))
    return sum(
        other.pending
        and not partitions.isdisjoint(other.partition.split(","))
        and (other.priority, -_number(other.job_id)) > (mine.priority, -_number(mine.job_id))
        for other in queue.values()
    )


def _number(job_id: str) -> int:
    """The number of a job, of an array's or of a component's job: `12`, `12_[1-3]`, `12+0`."""
    digits = re.match(r"\d+", job_id)
    return int(digits[0]) if digits else 0
