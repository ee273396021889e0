"""Sends one process's share of one step, and records it. One event loop, one core.

What it promises:
- Open loop: each request is due at a moment fixed beforehand, whatever became of the ones before it. How late the
  client was itself is in the record (`queue`), apart from what the server took.
- Nothing is sent twice, and nothing that was sent is left out: what is unfinished at the end is a record, too.
- No garbage collection while it measures; how late its own loop runs, and how much of a core it uses, is sampled.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from ipytune.endpoints.keys import bearer
from ipytune.endpoints.records import Endpoint
from ipytune.load.answer import AnswerReader, is_stream
from ipytune.load.arrivals import TraceRow, schedule, share_of
from ipytune.load.connection import ConnectFailed, Connection, Pool
from ipytune.load.flight import Fault, Flight, Read
from ipytune.load.plan import Load, Plan
from ipytune.load.prompts import Bodies
from ipytune.load.records import Kind, Record
from ipytune.load.vitals import Vitals, VitalsSampler

_SECOND = 1_000_000_000
_WATCH_SECONDS = 0.05
_LOOK_SECONDS = 0.01
_HOPELESS = 20  # so many failures and no success: the step ends, it would measure nothing
_LONGEST_PAUSE = 1.0  # seconds a user waits after failures, so that a server that is down is not stormed
_RECENT = 64

_PATHS = {"chat": "chat/completions", "completions": "completions"}


@dataclass
class Live:
    """How it goes, for people to watch. Samples are recent ones only; results come from the records."""

    sent: int = 0
    running: int = 0
    done: int = 0
    errors: int = 0
    chunks: int = 0
    ttft: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    gaps: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """What one process brings home. begin, end: its measured window, nanoseconds; (0, 0) if none was reached.

    ended: "sent" (all was sent), "stopped", "hopeless" (nothing but errors) or "in-flight limit".
    """

    records: list[Record]
    begin: int
    end: int
    vitals: Vitals
    ended: str


class Runner:
    """One share of one step: `prepare()` before the common start, then `run(start)`; `stop()` ends it early."""

    def __init__(
        self,
        endpoint: Endpoint,
        plan: Plan,
        load: Load,
        *,
        mark: str = "0",
        share: int = 0,
        of: int = 1,
        trace: tuple[TraceRow, ...] = (),
    ) -> None:
        self._endpoint = endpoint
        self._plan = plan
        self._load = load
        self._share = share
        self._of = of
        self._trace = trace
        self._key = endpoint.read_key()
        bearer(endpoint, self._key)  # refuses what no header can hold, without repeating it
        self._bodies = Bodies(plan, endpoint.model, mark)
        self._pool = Pool(endpoint, plan.timeouts, _PATHS[plan.api], self._full)
        self._flying: dict[Flight, Connection | None] = {}
        self._answers: dict[Flight, AnswerReader] = {}
        self._unread: deque[tuple[Flight, list[Read], bool]] = deque()  # reads, and whether they are the flight's last
        self._at: Iterator[None] | None = None
        self._reading = False
        self._records: list[Record] = []
        self._sending: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._bug: BaseException | None = None
        self._begin = 0
        self._end = 0
        self._ended = "sent"
        self._sent_measured = 0
        self.live = Live()

    async def prepare(self) -> None:
        """Open the connections that the start will need. Raises ConnectFailed."""
        count = share_of(int(self._load.value), self._share, self._of) if self._load.kind == "closed" else 1
        await self._pool.warm(min(count, 512))

    async def run(self, start: int) -> Measured:
        """start: the common moment, nanoseconds of CLOCK_MONOTONIC."""
        await _until(start)
        gc.collect()
        gc.freeze()
        gc.disable()
        sampler = VitalsSampler()
        watching = asyncio.create_task(self._watch())
        try:
            if self._ended == "sent":
                work = self._closed(start) if self._load.kind == "closed" else self._open(start)
                self._sending = asyncio.create_task(work)
                await asyncio.wait({self._sending})
                if not self._sending.cancelled():
                    self._sending.result()
            if self._end:  # the steady part is over; what follows is less load than was asked for
                sampler.stop()
            await self._drain()
        finally:
            vitals = sampler.stop()
            watching.cancel()
            gc.enable()
            gc.unfreeze()
            await self._give_up()
            self._pool.close()
            await asyncio.sleep(0)  # closing takes a turn of the loop
        while self._read_on():
            pass
        return Measured(self._records, self._begin, self._end, vitals, self._ended)

    def stop(self, why: str = "stopped") -> None:
        """Send nothing more and give up what is under way. From the loop's thread."""
        if self._ended == "sent":
            self._ended = why
            if self._begin:
                self._end = min(self._end or time.monotonic_ns(), time.monotonic_ns())
        if self._sending is not None:
            self._sending.cancel()

    def recent_gaps(self) -> list[float]:
        """Seconds between the last two reads of some of the answers that come in now."""
        gaps = []
        for flight in list(self._flying)[:_RECENT]:
            if flight.gap:
                gaps.append(flight.gap / _SECOND)
        return gaps

    def chunks(self) -> int:
        """Reads of answers so far, those under way included."""
        return self.live.chunks + sum(flight.chunks for flight in self._flying)

    async def _closed(self, start: int) -> None:
        users = share_of(int(self._load.value), self._share, self._of)
        for number in range(users):
            self._begin_task(self._user(start, number, users))
        while self._tasks and self._may_send():
            await asyncio.sleep(_LOOK_SECONDS)

    async def _user(self, start: int, number: int, users: int) -> None:
        plan = self._plan
        failures = 0
        if plan.ramp:
            await _until(start + int(plan.ramp * _SECOND * number / users))
        while self._may_send():
            now = time.monotonic_ns()
            index = self.live.sent * self._of + self._share
            warm = self.live.sent < share_of(plan.warmup_of(self._load), self._share, self._of)
            measured = not warm and now >= start + int(plan.ramp * _SECOND)
            if measured:
                self._sent_measured += 1
                if not self._begin:
                    self._begin = now
                    self._end = now + int(plan.duration * _SECOND) if plan.duration is not None else 0
            flight = self._flight(index, now, measured)
            await self._exchange(flight, self._bodies.body(index))
            failures = failures + 1 if flight.fault is not None or flight.status != 200 else 0
            if failures:
                await asyncio.sleep(min(0.05 * 2**failures, _LONGEST_PAUSE))

    def _may_send(self) -> bool:
        plan = self._plan
        if self._end and time.monotonic_ns() >= self._end:
            return False
        return plan.requests is None or self._sent_measured < share_of(plan.requests, self._share, self._of)

    async def _open(self, start: int) -> None:
        for arrival in schedule(self._plan, self._load, self._trace):
            due = start + round(arrival.at * _SECOND)
            if arrival.measured and not self._begin:
                self._begin = due
                self._end = due + int(self._plan.duration * _SECOND) if self._plan.duration is not None else 0
            if arrival.index % self._of != self._share:
                continue
            await _until(due)
            if len(self._flying) >= self._plan.max_in_flight:
                self.stop("in-flight limit")
                return
            flight = self._flight(arrival.index, due, arrival.measured)
            self._begin_task(self._exchange(flight, self._bodies.body(arrival.index, arrival.words, arrival.tokens)))
        if self._end:
            await _until(self._end)

    def _begin_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._bug = self._bug or task.exception()
            self.stop()

    def _flight(self, index: int, due: int, measured: bool) -> Flight:
        flight = Flight(index, due, measured, asyncio.get_running_loop().create_future())
        self._flying[flight] = None
        self.live.sent += 1
        return flight

    async def _exchange(self, flight: Flight, body: bytes) -> None:
        flight.begun = time.monotonic_ns()
        connection: Connection | None = None
        try:
            connection = await self._pool.take()
            self._flying[flight] = connection
            connection.send(self._pool.request(body, self._key), flight)
            await flight.done
        except ConnectFailed as error:
            flight.end(time.monotonic_ns(), fault=error.fault)
        except asyncio.CancelledError:
            fault = Fault(Kind.UNFINISHED, "The measurement ended first.")
            if connection is not None and not flight.ended:
                connection.cancel(fault)
            flight.end(time.monotonic_ns(), fault=fault)
            raise
        finally:
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        self._flying.pop(flight, None)
        live = self.live
        live.done += 1
        live.chunks += flight.chunks
        if flight.fault is not None and flight.fault.kind == Kind.UNFINISHED:
            pass  # our own doing
        elif flight.fault is not None or flight.status != 200:
            live.errors += 1
            if live.errors == live.done >= _HOPELESS:
                self.stop("hopeless")
        elif flight.first:
            live.ttft.append((flight.first - flight.sent) / _SECOND)
        self._read_later(flight, last=True)

    def _full(self, flight: Flight) -> None:
        """So much of an answer has come that it is read while it goes on."""
        self._read_later(flight, last=False)

    def _read_later(self, flight: Flight, last: bool) -> None:
        self._unread.append((flight, flight.hand_over(), last))
        if not self._reading:
            self._reading = True
            asyncio.get_running_loop().call_soon(self._read_portion)

    def _read_portion(self) -> None:
        """Between two portions the network is served."""
        self._reading = self._read_on()
        if self._reading:
            asyncio.get_running_loop().call_soon(self._read_portion)

    def _read_on(self) -> bool:
        """Read a portion; whether there may be more."""
        if not self._unread:
            return False
        flight, reads, last = self._unread[0]
        answer = self._answers.get(flight)
        if answer is None:
            answer = self._answers[flight] = AnswerReader(self._key)
        if self._at is None:
            self._at = answer.read(reads if is_stream(flight) else ())
        for _ in self._at:
            return True
        self._at = None
        self._unread.popleft()
        if last:
            self._records.append(answer.record(flight, reads))
            del self._answers[flight]
        return True

    async def _drain(self) -> None:
        """Wait for the answers under way; they count in the window as far as they came in it."""
        deadline = time.monotonic() + self._plan.drain
        while self._tasks and time.monotonic() < deadline and self._ended == "sent":
            await asyncio.sleep(_LOOK_SECONDS)

    async def _give_up(self) -> None:
        """End what is still under way. Raises what a task raised that should have raised nothing."""
        if self._sending is not None:
            self._sending.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._bug is not None:
            raise self._bug

    async def _watch(self) -> None:
        """The clocks of all flights, looked at together: a timer for each would cost more than the flight."""
        limits = self._plan.timeouts
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = time.monotonic_ns()
            self.live.running = len(self._flying)
            for flight, connection in list(self._flying.items()):
                if connection is None or flight.ended:
                    continue
                if not flight.first and now - flight.sent > limits.first_token * _SECOND:
                    connection.cancel(Fault(Kind.FIRST_TOKEN, f"No token within {limits.first_token:g} s."))
                elif flight.first and now - flight.last > limits.between_tokens * _SECOND:
                    connection.cancel(Fault(Kind.BETWEEN_TOKENS, f"Nothing came for {limits.between_tokens:g} s."))
                elif now - flight.sent > limits.total * _SECOND:
                    connection.cancel(Fault(Kind.TOTAL, f"Not complete within {limits.total:g} s."))


async def _until(moment: int) -> None:
    """Sleep until a moment of CLOCK_MONOTONIC; always lets the loop turn once."""
    await asyncio.sleep(max(moment - time.monotonic_ns(), 0) / _SECOND)
