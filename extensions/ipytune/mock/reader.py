"""HTTP/1.1 requests, read out of whatever pieces the network delivers. No I/O and no clock: bytes in, requests out.

What a client of an OpenAI API sends: a head, and a body by Content-Length or in chunks; several requests after one
another on one connection. What is no such request raises BadHead with the status to answer; the connection is then of
no more use, for nobody knows where the next request would begin.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_HEAD = 64 * 1024
MAX_BODY = 256 * 1024 * 1024

_METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"})


class BadHead(ValueError):
    """No request that can be answered. status: of the refusal."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Request:
    """headers: names in lower case; of a repeated one the last. keep: whether the connection may be used again."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keep: bool = True
    old: bool = False  # HTTP/1.0, which knows no chunks


class RequestReader:
    """Feed it bytes, get the requests that they complete.

    >>> reader = RequestReader()
    >>> reader.feed(b"GET /health HTTP/1.1\\r\\nHost: x\\r\\n")
    []
    >>> [request.path for request in reader.feed(b"\\r\\n")]
    ['/health']
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._seen = 0  # how far the rest was searched for the end of a head or a line
        self._head: Request | None = None
        self._length = 0  # of the body; -1: in chunks
        self._chunks = bytearray()
        self._trailer = False
        self.wants_continue = False  # "Expect: 100-continue" was read; the one who answers sets it back

    def feed(self, raw: bytes) -> list[Request]:
        self._rest += raw
        found = []
        while True:
            if self._head is None and not self._read_head():
                break
            body = self._read_chunks() if self._length < 0 else self._read_length()
            if body is None:
                break
            head, self._head = self._head, None
            assert head is not None
            self.wants_continue = False
            found.append(Request(head.method, head.path, head.headers, body, head.keep, head.old))
        return found

    def _read_head(self) -> bool:
        while self._rest[:2] == b"\r\n":  # an empty line before a request is allowed, and left over by some clients
            del self._rest[:2]
            self._seen = 0
        end = self._rest.find(b"\r\n\r\n", max(self._seen - 3, 0))
        if end < 0:
            self._seen = len(self._rest)
            if self._seen > MAX_HEAD:
                raise BadHead(431, f"The head of the request is longer than {MAX_HEAD} bytes.")
            return False
        if end > MAX_HEAD:
            raise BadHead(431, f"The head of the request is longer than {MAX_HEAD} bytes.")
        head = self._rest[:end].decode("latin-1")
        del self._rest[: end + 4]
        self._seen = 0
        first, *lines = head.split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or words[0] not in _METHODS or words[2] not in ("HTTP/1.1", "HTTP/1.0") or not words[1]:
            raise BadHead(400, "The first line is no HTTP/1.1 request.")
        headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
                raise BadHead(400, "A header is no name and value.")
            headers[name.lower()] = value.strip(" \t")
        self._length = _body_length(headers)
        old = words[2] == "HTTP/1.0"
        said = headers.get("connection", "").lower()
        self._head = Request(words[0], words[1], headers, b"", "close" not in said and not old, old)
        self.wants_continue = headers.get("expect", "").lower() == "100-continue" and self._length != 0
        return True

    def _read_length(self) -> bytes | None:
        if len(self._rest) < self._length:
            return None
        body = bytes(self._rest[: self._length])
        del self._rest[: self._length]
        return body

    def _read_chunks(self) -> bytes | None:
        while True:
            end = self._rest.find(b"\r\n", max(self._seen - 1, 0))
            if end < 0:
                self._seen = len(self._rest)
                if self._seen > MAX_HEAD:
                    raise BadHead(400, "A chunk of the body has no length.")
                return None
            if self._trailer:
                del self._rest[: end + 2]
                self._seen = 0
                if end == 0:
                    self._trailer = False
                    body = bytes(self._chunks)
                    self._chunks.clear()
                    return body
                continue
            size = _chunk_size(bytes(self._rest[:end]))
            if size + len(self._chunks) > MAX_BODY:
                raise BadHead(413, f"The body is larger than {MAX_BODY} bytes.")
            if size == 0:
                del self._rest[: end + 2]
                self._seen = 0
                self._trailer = True
                continue
            whole = end + 2 + size + 2
            if len(self._rest) < whole:
                self._seen = end
                return None
            if self._rest[whole - 2 : whole] != b"\r\n":
                raise BadHead(400, "A chunk of the body is longer than it says.")
            self._chunks += self._rest[end + 2 : whole - 2]
            del self._rest[:whole]
            self._seen = 0


def _body_length(headers: dict[str, str]) -> int:
    """Bytes of the body; -1 when it comes in chunks."""
    coding = headers.get("transfer-encoding", "").lower()
    length = headers.get("content-length")
    if coding:
        if coding != "chunked" or length is not None:
            raise BadHead(400, "A body comes in chunks or with its length, not otherwise.")
        return -1
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit() and len(length) < 16):
        raise BadHead(400, "Content-Length is no number.")
    if int(length) > MAX_BODY:
        raise BadHead(413, f"The body is larger than {MAX_BODY} bytes.")
    return int(length)


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
        raise BadHead(400, "A chunk of the body has no length.")
    return int(digits, 16)
