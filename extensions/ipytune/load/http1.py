"""An HTTP/1.1 response, read from whatever pieces the network delivers. No I/O and no clock.

Only what a measuring client needs, but that exactly: status, headers, a body that is chunked (extensions and trailers
skipped), of a given length, or as long as the connection lives. What breaks the rules of RFC 9112 raises BadResponse.
Chunks that come whole, as nearly all of a stream do, take a short way.
"""

from __future__ import annotations

import re
from enum import Enum

_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?")
_HEADER_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LONGEST_HEAD = 64 * 1024
_LONGEST_LINE = 8 * 1024


class BadResponse(ValueError):
    """The bytes are no HTTP/1.1 response, or end before it does."""


class _At(Enum):
    HEAD = 1
    SIZE = 2
    DATA = 3
    DATA_END = 4
    TRAILER = 5
    LENGTH = 6
    UNTIL_CLOSE = 7
    DONE = 8


class ResponseReader:
    """Feed it bytes, get the bytes of the body. `reset()` before the next response on the same connection.

    status: 0 until the head is there.   headers: names in lower case.   complete: the response is over.
    reusable: the connection may carry another request afterwards.
    """

    __slots__ = ("_at", "_left", "_rest", "complete", "headers", "reusable", "status")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.reusable = True
        self._at = _At.HEAD
        self._left = 0
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """What `data` adds to the body. Raises BadResponse."""
        if self._at is not _At.SIZE or self._rest:
            return self._feed(data)
        whole = []
        position, length = 0, len(data)
        while position < length:
            match = _SIZE_LINE.match(data, position)
            if match is None:
                break
            start = match.end()
            end = start + int(match[1], 16)
            if end == start or data[end : end + 2] != b"\r\n":
                break
            if position == 0 and end + 2 == length:
                return data[start:end]
            whole.append(data[start:end])
            position = end + 2
        if position < length:
            whole.append(self._feed(data[position:]))
        return b"".join(whole)

    def close(self) -> None:
        """The connection ended. Raises BadResponse if the response had not."""
        if self._at is _At.UNTIL_CLOSE:
            self._finish()
        elif not self.complete:
            raise BadResponse("the connection ended before the response did")

    def _feed(self, data: bytes) -> bytes:
        if self._rest:
            data, self._rest = self._rest + data, b""
        body: list[bytes] = []
        position, size = 0, len(data)
        while position < size:
            at = self._at
            if at is _At.DATA or at is _At.LENGTH:
                taken = min(self._left, size - position)
                body.append(data[position : position + taken])
                position += taken
                self._left -= taken
                if not self._left:
                    if at is _At.LENGTH:
                        self._finish()
                    else:
                        self._at = _At.DATA_END
            elif at is _At.UNTIL_CLOSE:
                body.append(data[position:])
                position = size
            elif at is _At.DONE:
                raise BadResponse("bytes came after the end of the response")
            else:
                ended = self._line(data, position)
                if ended is None:
                    self._rest = data[position:]
                    break
                position = ended
        return b"".join(body)

    def _line(self, data: bytes, position: int) -> int | None:
        """Read what stands at `position` and return where it ends, or None if that has not come yet."""
        if self._at is _At.DATA_END:
            if not b"\r\n".startswith(data[position : position + 2]):
                raise BadResponse("a chunk is longer than it said")
            if len(data) - position < 2:
                return None
            self._at = _At.SIZE
            return position + 2
        mark, limit = (b"\r\n\r\n", _LONGEST_HEAD) if self._at is _At.HEAD else (b"\r\n", _LONGEST_LINE)
        end = data.find(mark, position)
        if (end if end >= 0 else len(data)) - position > limit:
            raise BadResponse("a line of the response has no end")
        if end < 0:
            if self._at is _At.HEAD and not b"HTTP/1.".startswith(data[position : position + 7]):
                raise BadResponse("what answers does not speak HTTP/1.1")
            return None
        if self._at is _At.HEAD:
            self._head(data[position:end])
        elif self._at is _At.SIZE:
            match = _SIZE_LINE.fullmatch(data, position, end + 2)
            if match is None:
                raise BadResponse("a chunk has no size")
            self._left = int(match[1], 16)
            self._at = _At.DATA if self._left else _At.TRAILER
        elif end == position:  # the empty line after the trailers
            self._finish()
        return end + len(mark)

    def _head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise BadResponse("what answers does not speak HTTP/1.1")
        status = int(match[2])
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not _HEADER_NAME.fullmatch(name):
                raise BadResponse("a header of the response is none")
            key, text = name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
            if key == "content-length" and headers.get(key, text) != text:
                raise BadResponse("the response has two lengths")
            headers[key] = f"{headers[key]}, {text}" if key in headers and key != "content-length" else text
        if 100 <= status < 200:
            return  # an interim response; the real one follows
        self.status = status
        self.headers = headers
        options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
        self.reusable = "close" not in options and (match[1] == b"1" or "keep-alive" in options)
        coding = headers.get("transfer-encoding", "").lower()
        if status in (204, 304):
            self._finish()
        elif coding:
            if coding != "chunked":
                raise BadResponse("the response is encoded in an unknown way")
            self._at = _At.SIZE
        elif "content-length" in headers:
            if not re.fullmatch(r"[0-9]{1,15}", headers["content-length"]):
                raise BadResponse("the response has a length that is none")
            self._left = int(headers["content-length"])
            self._at = _At.LENGTH
            if not self._left:
                self._finish()
        else:
            self._at = _At.UNTIL_CLOSE
            self.reusable = False

    def _finish(self) -> None:
        self._at = _At.DONE
        self.complete = True
