"""How the tests talk with a mock: over a real socket, and with every event of a stream seen as it came."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from ipytune.mock import MockServer

USER = [{"role": "user", "content": "two nodes please"}]
LIMIT = 20.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@dataclass
class Seen:
    """A stream as it came: the JSON of each event, the text before [DONE], and the bytes."""

    raw: bytes = b""
    events: list[Any] = field(default_factory=list)
    done: bool = False

    @property
    def deltas(self) -> list[dict[str, Any]]:
        return [event["choices"][0]["delta"] for event in self.events if event.get("choices")]

    @property
    def text(self) -> str:
        return "".join(delta.get("content") or "" for delta in self.deltas)

    @property
    def reasons(self) -> list[str]:
        found = [event["choices"][0]["finish_reason"] for event in self.events if event.get("choices")]
        return [reason for reason in found if reason]

    @property
    def usages(self) -> list[Any]:
        return [event["usage"] for event in self.events if event.get("usage")]


def parse(raw: bytes) -> Seen:
    seen = Seen(raw)
    for block in raw.replace(b"\r\n", b"\n").split(b"\n\n"):
        for line in block.split(b"\n"):
            if line == b"data: [DONE]":
                seen.done = True
            elif line.startswith(b"data: "):
                seen.events.append(json.loads(line[6:]))
    return seen


@dataclass
class Talk:
    server: MockServer
    http: httpx.Client

    def post(self, path: str = "/v1/chat/completions", headers: Any = None, **body: Any) -> httpx.Response:
        return self.http.post(path, json=self._body(path, body), headers=headers)

    def stream(self, path: str = "/v1/chat/completions", usage: bool = True, **body: Any) -> Seen:
        options = {"stream_options": {"include_usage": True}} if usage else {}
        response = self.post(path, stream=True, **options, **body)
        assert response.status_code == 200, response.text
        return parse(response.content)

    @contextmanager
    def raw(self, **body: Any) -> Iterator[socket.socket]:
        """A socket on which a streamed chat has been asked for."""
        content = json.dumps(self._body("/v1/chat/completions", {"stream": True, **body})).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", self.server.port), LIMIT) as connection:
            connection.sendall(head + content)
            yield connection

    @staticmethod
    def _body(path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = {"prompt": "two nodes please"} if path == "/v1/completions" else {"messages": USER}
        return {"model": "mock", **asked, **body}


def read_until(connection: socket.socket, what: bytes) -> bytes:
    """What comes up to and with `what`."""
    seen = b""
    while what not in seen:
        data = connection.recv(65536)
        assert data, f"the connection ended before {what!r}: {seen!r}"
        seen += data
    return seen


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the other side closes in order. Raises ConnectionResetError when it does not."""
    seen = b""
    while data := connection.recv(65536):
        seen += data
    return seen
