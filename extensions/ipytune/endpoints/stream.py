"""One answer being written: from the bytes of a response to pieces, under the clocks of the request.

An answer is complete once the server gave its finish reason or [DONE]. What breaks off before, by a lost connection or
in the middle of an event, is StreamCut; what came is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from ipytune.endpoints.answer import Answer, Piece
from ipytune.endpoints.asking import Asked
from ipytune.endpoints.chunks import Chunk, UnreadableChunk, read_chunk
from ipytune.endpoints.clocks import Clock, before, within
from ipytune.endpoints.errors import EndpointError, ServerFailed, StreamCut, TimedOut
from ipytune.endpoints.keys import blot, unlogged
from ipytune.endpoints.logprobs import TokenLogprob
from ipytune.endpoints.metrics import Stopwatch
from ipytune.endpoints.opening import not_a_stream
from ipytune.endpoints.sse import EventParser, EventTooLarge
from ipytune.endpoints.tool_calls import ToolCalls
from ipytune.endpoints.untrusted import one_line

_SHOWN = 200  # characters of what a server sent by mistake
_LAST_WORD = 0.25  # seconds for the end of a response after its [DONE]: a connection read to the end is used again
_BROKEN = (httpx.RemoteProtocolError, httpx.ReadError, httpx.StreamError, httpx.DecodingError)


@dataclass(frozen=True)
class _Digest:
    """What one read brought. ended: nothing more is to be read of the answer; done: because the server said so."""

    pieces: list[Piece]
    ended: bool
    done: bool = False
    failure: EndpointError | None = None


class ChatStream:
    """Iterate it for the pieces; read `answer` at any time, from any thread, for what there is so far."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._watch = Stopwatch(time.monotonic())
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._tools = ToolCalls()
        self._finish_reason: str | None = None
        self._response: httpx.Response | None = None

    @property
    def answer(self) -> Answer:
        return Answer(
            endpoint=self._asked.endpoint,
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            finish_reason=self._finish_reason,
            metrics=self._watch.metrics(),
            tool_calls=self._tools.whole(),
            logprobs=tuple(self._logprobs),
        )

    def begin(self, response: httpx.Response, watch: Stopwatch) -> None:
        """The response has come: there is something to iterate. For who opened it."""
        self._response = response
        self._watch = watch

    async def __aiter__(self) -> AsyncIterator[Piece]:
        if self._response is None:
            raise RuntimeError("a ChatStream is iterated once, inside `async with client.stream(...)`")
        response, self._response = self._response, None
        parser = EventParser()
        reads = response.aiter_raw().__aiter__() if _identity(response) else response.aiter_bytes().__aiter__()
        while True:
            digest = self._digest(await self._next_read(reads), parser)
            for piece in digest.pieces:
                yield piece
            if digest.failure is not None:
                raise digest.failure
            if digest.ended:
                break
        if digest.done:
            await _to_the_end(reads)
        # The end of the connection without [DONE]: right for servers that never send it, if a reason was given.
        elif self._finish_reason is None:
            raise self._cut("The connection ended before the server said that it was complete.")

    def _digest(self, raw: bytes | None, parser: EventParser) -> _Digest:
        """Note what `raw` (None: the end) brings.

        An error is given back, not raised: what a traceback shows of local variables must not be a server's words,
        which may repeat the key.
        """
        now = time.monotonic()
        pieces: list[Piece] = []
        try:
            for data in parser.feed(raw) if raw is not None else parser.close():
                chunk = self._read(data, ended=raw is None)
                if isinstance(chunk, EndpointError):
                    return _Digest(pieces, ended=True, failure=chunk)
                if chunk.done:
                    return _Digest(pieces, ended=True, done=True)
                pieces += self._taken(chunk, now)
        except EventTooLarge as error:
            return _Digest(pieces, ended=True, failure=not_a_stream(self._asked.endpoint, str(error)))
        return _Digest(pieces, ended=raw is None)

    def _read(self, data: str, *, ended: bool) -> Chunk | EndpointError:
        try:
            chunk = read_chunk(data)
        except UnreadableChunk:
            if ended:  # half an event: the rest of it never came
                return Chunk() if self._finish_reason is not None else self._cut("It ended in the middle of an event.")
            if self._watch.last_token is None:
                return not_a_stream(self._asked.endpoint, self._quoted(data))
            return ServerFailed(
                f"“{self._asked.endpoint.name}” sent a part of its answer that cannot be read.",
                f"It is no JSON: {self._quoted(data)}",
                "The part before it is kept. Ask again; if it comes again, tell who runs the server.",
            )
        if chunk.error is not None:
            return ServerFailed(
                f"“{self._asked.endpoint.name}” ended its answer with an error.",
                f"The server said: {self._quoted(chunk.error)}",
                "Look into the server's log; a shorter prompt or fewer tokens may avoid it.",
            )
        return chunk

    def _taken(self, chunk: Chunk, now: float) -> list[Piece]:
        """Note what the chunk adds, and give it as pieces."""
        self._watch.chunk(chunk, now)
        self._finish_reason = chunk.finish_reason or self._finish_reason
        self._logprobs += chunk.logprobs
        pieces = []
        if chunk.reasoning:
            self._reasoning.append(chunk.reasoning)
            pieces.append(Piece("reasoning", chunk.reasoning))
        if chunk.content:
            self._text.append(chunk.content)
            pieces.append(Piece("content", chunk.content))
        for tool in chunk.tools:
            self._tools.add(tool)
            if tool.text:
                pieces.append(Piece("tool", tool.text))
        return pieces

    async def _next_read(self, reads: AsyncIterator[bytes]) -> bytes | None:
        asked, watch = self._asked, self._watch
        # From the last token, not the last read: keep-alive comments must not hide a stall.
        clock: Clock
        if watch.last_token is not None:
            clock, due = "between_tokens", watch.last_token + asked.timeouts.between_tokens
        else:
            clock, due = "first_token", watch.started + asked.timeouts.first_token
        try:
            with unlogged(asked.key):
                return await before(anext(reads, None), clock, due, asked.deadline, asked.waiting)
        except TimedOut:
            if self._finish_reason is not None:
                return None
            raise
        except _BROKEN as error:
            if self._finish_reason is not None:
                return None  # the answer is whole; at most the server's count of its tokens is lost
            raise self._cut(f"The connection broke: {self._quoted(str(error)).rstrip('.') or 'no reason'}.") from None

    def _cut(self, why: str) -> StreamCut:
        return StreamCut(
            f"The answer of “{self._asked.endpoint.name}” was cut off.",
            why,
            "The part that came is kept. See whether the server, or a proxy on the way, has stopped; then ask again.",
        )

    def _quoted(self, words: str) -> str:
        return one_line(blot(words, self._asked.key), _SHOWN)


async def _to_the_end(reads: AsyncIterator[bytes]) -> None:
    """Read what follows [DONE], usually the mark that the response ends; without it the connection is thrown away."""
    due = time.monotonic() + _LAST_WORD
    try:
        while await within(anext(reads, None), max(due - time.monotonic(), 0.001)) is not None:
            pass
    except (asyncio.TimeoutError, *_BROKEN):  # noqa: UP041  (another class before Python 3.11)
        pass  # the answer is whole


def _identity(response: httpx.Response) -> bool:
    return response.headers.get("content-encoding", "identity") == "identity"
