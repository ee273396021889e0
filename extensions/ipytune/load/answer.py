"""From the bytes of an answer, and the moments at which they came, to its record.

An answer is read in portions of about a tenth of a millisecond, so that reading one does not delay the stamps of the
others; a long one while it still comes, so that memory does not grow with its length.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence

from pydantic import SecretStr

from ipytune.endpoints import refusals
from ipytune.endpoints.chunks import error_text
from ipytune.endpoints.keys import blot
from ipytune.endpoints.sse import EventParser, EventTooLarge
from ipytune.endpoints.untrusted import one_line
from ipytune.load.events import Event, UnreadableEvent, read_event
from ipytune.load.flight import Fault, Flight, Read
from ipytune.load.records import Kind, Record

_PORTION = 24  # events
_ERROR_BODY = 64 * 1024
_SHOWN = 300
_ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,120})"')


class AnswerReader:
    """Of one flight: `read()` what has come, as often as something has; `record()` once it has ended."""

    def __init__(self, key: SecretStr | None) -> None:
        self._key = key
        self._parser = EventParser()
        self._clean = True  # nothing of an event is held back from an earlier read
        self._times = array("q")
        self._first_output = 0
        self._output_tokens: int | None = None
        self._prompt_tokens: int | None = None
        self._response_id = ""
        self._complete = False
        self._fault: Fault | None = None

    def read(self, reads: Sequence[Read]) -> Iterator[None]:
        """Read on; a stop wherever others may have their turn."""
        count = 0
        for now, body in reads:
            if self._fault is not None:
                return
            for event in self._events(body):
                self._take(now, event)
                count += 1
                if count % _PORTION == 0:
                    yield

    def record(self, flight: Flight, last: Sequence[Read]) -> Record:
        """The record of an ended flight. last: reads that `read()` has seen; of a refusal they are its words."""
        record = Record(
            index=flight.index,
            measured=flight.measured,
            due=flight.due,
            begun=flight.begun,
            sent=flight.sent,
            ended=flight.ended,
            first_output=self._first_output,
            times=self._times,
            status=flight.status,
            output_tokens=self._output_tokens,
            prompt_tokens=self._prompt_tokens,
            response_id=self._response_id,
        )
        if is_stream(flight):
            fault = self._ended(flight.fault)
            return record if fault is None else record.failed(fault.kind, fault.message)
        raw = b"".join(body for _, body in last)[:_ERROR_BODY]
        words = refusals.server_words(raw, flight.headers.get("content-type", ""), self._key)[:_SHOWN]
        if flight.status != 200:
            return record.failed(f"HTTP {flight.status}", words or "The server gave no reason.")
        return record.failed(Kind.NO_STREAM, f"It sent: {words}")

    def _ended(self, fault: Fault | None) -> Fault | None:
        # An answer that was cut off may end in half an event: that it was cut off is what to tell.
        fault = fault or self._fault
        if fault is None and not self._complete:
            return Fault(Kind.CUT, "The stream ended before the server said that it was complete.")
        if fault is None and not self._times:
            return Fault(Kind.EMPTY, "The answer held no token.")
        return fault

    def _events(self, body: bytes) -> Iterator[Event]:
        try:
            for data in self._data(body):
                yield read_event(data)
        except (UnreadableEvent, EventTooLarge) as error:
            self._fault = Fault(Kind.UNREADABLE, f"It sent: {self._said(str(error))}")
            return
        if not self._response_id and (match := _ID.search(body)) is not None:
            self._response_id = match[1].decode("ascii", errors="replace")

    def _data(self, body: bytes) -> list[str]:
        """The data of the events that `body` completes. Nearly every read is whole events of a line each, which need
        no parser."""
        if self._clean and body.startswith(b"data: ") and body.endswith(b"\n\n"):
            lines = body[6:-2].split(b"\n\ndata: ")
            if body.count(b"\n") == 2 * len(lines) and b"\r" not in body:
                return [line.decode("utf-8", errors="replace") for line in lines]
        data = self._parser.feed(body)
        self._clean = body.endswith(b"\n\n")
        return data

    def _take(self, now: int, event: Event) -> None:
        if event.token:
            self._times.append(now)
            if event.output and not self._first_output:
                self._first_output = now
        if event.finish_reason is not None or event.done:
            self._complete = True
        if event.completion_tokens is not None:
            self._output_tokens = event.completion_tokens
        if event.prompt_tokens is not None:
            self._prompt_tokens = event.prompt_tokens
        if event.error is not None:
            self._fault = Fault(Kind.IN_STREAM, f"The server said: {self._said(error_text(event.error))}")

    def _said(self, words: str) -> str:
        return one_line(blot(words, self._key), _SHOWN)


def is_stream(flight: Flight) -> bool:
    """Whether what came is a stream of events, or nothing at all; else it is a refusal or a page."""
    if flight.status == 0:
        return True
    kind = flight.headers.get("content-type", "")
    return flight.status == 200 and not kind.startswith(("application/json", "text/html"))
