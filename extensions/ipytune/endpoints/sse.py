"""Server-sent events, parsed from whatever pieces the network delivers.

The parts of the WHATWG event-stream format that a chat completion uses: `data` lines, joined by newlines when an event
has several; comments (lines that begin with a colon, sent as keep-alives) dropped; `event`, `id`, `retry` ignored; line
ends \\n, \\r\\n and \\r; UTF-8 characters and line ends split between reads. No I/O and no clock: bytes in, data out.
"""

from __future__ import annotations

import codecs

# An event larger than this is not a chat delta; without a limit a server could fill the memory of the notebook.
MAX_EVENT_BYTES = 16 * 1024 * 1024


class EventTooLarge(ValueError):
    """One event exceeded MAX_EVENT_BYTES without ending."""


class EventParser:
    """Feed it bytes, get the data of every event that they complete.

    >>> parser = EventParser()
    >>> parser.feed(b": hello\\n\\ndata: a\\ndata: b\\n")
    []
    >>> parser.feed(b"\\n")
    ['a\\nb']
    """

    def __init__(self) -> None:
        # utf-8-sig: a byte order mark at the start of the stream is to be ignored.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._rest = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, raw: bytes) -> list[str]:
        """The data of the events that `raw` completes, in order."""
        text = self._rest + self._decoder.decode(raw)
        # A carriage return at the very end may be half of \r\n: keep it until the next read shows which.
        held = "\r" if text.endswith("\r") else ""
        lines = text[: len(text) - len(held)].replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = lines.pop() + held
        events = []
        for line in lines:
            event = self._line(line)
            if event is not None:
                events.append(event)
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLarge(f"one event is larger than {MAX_EVENT_BYTES} bytes")
        return events

    def close(self) -> list[str]:
        """The stream ended: the event still open, if any. Stricter readers drop it; some servers omit the last blank
        line, and an answer should not lose its end to that."""
        return self.feed(b"\n\n")

    def _line(self, line: str) -> str | None:
        if line == "":
            data, self._data, self._size = self._data, [], 0
            return "\n".join(data) if data else None
        field, _, value = line.partition(":")
        if field == "data":
            value = value[1:] if value.startswith(" ") else value
            self._data.append(value)
            self._size += len(value)
        return None
