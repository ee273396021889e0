"""One request under way: its moments, and the bytes of its answer as they came.

While it flies only what decides at once is looked at (the first token, the stall clocks). Its JSON is read later, in
small portions between the loop's other work: see answer.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ipytune.endpoints.sse import EventParser, EventTooLarge
from ipytune.load.events import UnreadableEvent, read_event
from ipytune.load.http1 import ResponseReader

Read = tuple[int, bytes]  # when it came, and what of the body it brought


@dataclass(frozen=True)
class Fault:
    """Why a request failed. kind groups them; message says what was seen, without the key."""

    kind: str
    message: str


class Flight:
    """Moments are nanoseconds of CLOCK_MONOTONIC, 0 for what has not happened."""

    __slots__ = (
        "begun",
        "done",
        "due",
        "ended",
        "fault",
        "first",
        "gap",
        "handed",
        "headers",
        "index",
        "last",
        "measured",
        "parser",
        "reads",
        "sent",
        "status",
    )

    def __init__(self, index: int, due: int, measured: bool, done: asyncio.Future[None]) -> None:
        self.index = index
        self.due = due
        self.measured = measured
        self.done = done
        self.begun = self.sent = self.first = self.last = self.ended = 0
        self.gap = 0  # between the last two reads
        self.status = 0
        self.headers: dict[str, str] = {}
        self.reads: list[Read] = []
        self.handed = 0  # reads that hand_over() took away
        self.fault: Fault | None = None
        self.parser: EventParser | None = EventParser()

    def look(self, now: int, body: bytes) -> None:
        """Until the first token: is it in what has just come?"""
        parser = self.parser
        if parser is None:
            return
        try:
            for data in parser.feed(body):
                event = read_event(data)
                if event.token:
                    self.first = self.last = now
                    self.parser = None
                    return
        except (UnreadableEvent, EventTooLarge):
            self.parser = None  # answer.py says what is wrong with it

    @property
    def chunks(self) -> int:
        """Reads so far."""
        return self.handed + len(self.reads)

    def hand_over(self) -> list[Read]:
        """What has come since the last time."""
        reads, self.reads = self.reads, []
        self.handed += len(reads)
        return reads

    def end(self, now: int, reader: ResponseReader | None = None, fault: Fault | None = None) -> None:
        """The exchange is over, well or not. Only the first end counts."""
        if self.ended:
            return
        self.ended = now
        self.fault = fault
        self.parser = None
        if reader is not None:
            self.status = reader.status
            self.headers = reader.headers
        if not self.done.done():
            self.done.set_result(None)
