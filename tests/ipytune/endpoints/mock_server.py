"""A server with known answers, byte for byte: what arrives in one read, what is split, what comes late or never.

It speaks just enough HTTP/1.1 for one request a connection. A script is a list of steps; bytes are written and flushed
(with a pause after, so that they arrive as a read of their own), an Event is waited for, CUT ends the connection.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CUT = object()
Step = bytes | threading.Event | object


def delta(content: str | None = None, **fields: Any) -> bytes:
    """One event with a chat chunk."""
    inner = {key: value for key, value in fields.items() if key in ("role", "reasoning", "reasoning_content")}
    if content is not None:
        inner["content"] = content
    chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": inner, "finish_reason": fields.get("finish_reason")}]}
    return event(chunk)


def event(body: Any) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def usage(completion: int, prompt: int = 5) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


DONE = b"data: [DONE]\n\n"


def stream(*steps: Step, content_type: str = "text/event-stream") -> list[Step]:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n"
    return [head.encode(), *steps]


def reply(status: int, body: Any, headers: str = "") -> list[Step]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "text/html" if isinstance(body, bytes) else "application/json"
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(raw)}\r\n{headers}"
    return [head.encode() + b"Connection: close\r\n\r\n" + raw]


def words(text: str, gate: threading.Event | None = None) -> list[Step]:
    """An ordinary answer, a word a chunk; with a gate, it stops after the first word until the gate opens."""
    pieces = [delta(word if index == 0 else f" {word}") for index, word in enumerate(text.split())]
    steps: list[Step] = [delta(role="assistant"), pieces[0]]
    if gate is not None:
        steps.append(gate)
    return stream(*steps, *pieces[1:], delta(finish_reason="stop"), usage(len(pieces)), DONE)


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Answer = Callable[[Request], Sequence[Step]]


@dataclass
class Mock:
    """Set `answer` to what POST /chat/completions shall do; `models` is what GET /models lists."""

    url: str = ""
    answer: Answer = lambda _: words("hello there")
    models: tuple[str, ...] = ("m",)
    requests: list[Request] = field(default_factory=list)
    client_left: threading.Event = field(default_factory=threading.Event)

    def replies(self, *scripts: Sequence[Step]) -> None:
        """The first request gets the first script, and so on; the last one serves all that follow."""
        left = list(scripts)
        self.answer = lambda _: left.pop(0) if len(left) > 1 else left[0]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader)
            if request.path.endswith("/models"):
                script = reply(200, {"object": "list", "data": [{"id": name} for name in self.models]})
            else:
                self.requests.append(request)
                script = list(self.answer(request))
            # Our clients send nothing after the request, so the end of their side means that they have left.
            leaving = asyncio.create_task(reader.read())
            writing = asyncio.create_task(_write(script, writer))
            await asyncio.wait({leaving, writing}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and not writing.done():
                self.client_left.set()
            for task in (leaving, writing):
                task.cancel()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.client_left.set()
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(path=first.split()[1], headers=headers, body=json.loads(raw) if raw else {})


async def _write(script: Sequence[Step], writer: asyncio.StreamWriter) -> None:
    for step in script:
        if step is CUT:
            writer.transport.abort()
            return
        if isinstance(step, threading.Event):
            while not step.is_set():
                await asyncio.sleep(0.005)
        elif isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
            await asyncio.sleep(0.002)


@contextmanager
def mock_server() -> Iterator[Mock]:
    """A Mock behind a URL of this machine, in a thread of its own."""
    mock = Mock()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    starting = asyncio.start_server(mock.handle, "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result(5)
    mock.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    async def close() -> None:
        server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    try:
        yield mock
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
