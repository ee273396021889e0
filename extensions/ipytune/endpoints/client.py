"""Streams chats from any server that speaks OpenAI's /v1/chat/completions.

What it promises:
- Four clocks: connect, first token, between tokens, total. A stream that stalls after HTTP 200 is noticed.
- A request is repeated only before the first byte of an answer, and only when the server has begun nothing.
- Leaving `stream()` early, by an exception, a cancellation or a break, closes the connection, so that the server stops.
- Errors are those of errors.py. Keys stay out of them, of logs and of reprs.

Sources for the limits: LiteLLM #4050 (streams stall after 200), aiohttp's 300 s total that cuts long answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypeVar

import httpx
from pydantic import SecretStr

from ipytune.endpoints import refusals
from ipytune.endpoints.chunks import UnreadableChunk, read_chunk
from ipytune.endpoints.errors import (
    EndpointError,
    RateLimited,
    ServerFailed,
    StreamCut,
    TimedOut,
    Unreachable,
)
from ipytune.endpoints.metrics import Metrics, Stopwatch
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.sse import EventParser, EventTooLarge

T = TypeVar("T")
Message = Mapping[str, Any]

_LONGEST_RETRY_WAIT = 20.0  # seconds; a server that asks for more gets its 429 shown instead
_ERROR_BODY = 64 * 1024


@dataclass(frozen=True)
class Timeouts:
    """Seconds. first_token is long because it holds the queue, the model's loading and the reading of the prompt."""

    connect: float = 10.0
    first_token: float = 180.0
    between_tokens: float = 60.0
    total: float = 3600.0


@dataclass(frozen=True)
class Piece:
    """Text as it arrives: of the answer, or of the reasoning before it."""

    kind: Literal["content", "reasoning"]
    text: str


@dataclass(frozen=True)
class Answer:
    """An answer, whole or as far as it came. finish_reason is the server's ("stop", "length"), None when cut."""

    endpoint: Endpoint
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    metrics: Metrics = field(default_factory=Metrics)


class _Bearer(httpx.Auth):
    """Puts the key into the header at the last moment; holds it where no repr or traceback shows it."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        yield request


class ChatStream:
    """One answer being written: iterate it for the pieces, read `answer` at any time for what there is so far."""

    def __init__(self, endpoint: Endpoint, key: SecretStr | None, timeouts: Timeouts, deadline: float) -> None:
        self._endpoint = endpoint
        self._key = key
        self._timeouts = timeouts
        self._deadline = deadline
        self._watch = Stopwatch(time.monotonic())
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._finish_reason: str | None = None
        self._response: httpx.Response | None = None

    @property
    def answer(self) -> Answer:
        return Answer(
            endpoint=self._endpoint,
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            finish_reason=self._finish_reason,
            metrics=self._watch.metrics(),
        )

    async def __aiter__(self) -> AsyncIterator[Piece]:
        if self._response is None:
            raise RuntimeError("a ChatStream is iterated once, inside `async with client.stream(...)`")
        response, self._response = self._response, None
        parser = EventParser()
        reads = response.aiter_raw().__aiter__() if _identity(response) else response.aiter_bytes().__aiter__()
        while True:
            raw = await self._next_read(reads)
            try:
                events = parser.feed(raw) if raw is not None else parser.close()
            except EventTooLarge as error:
                raise not_a_stream(self._endpoint, str(error)) from None
            for data in events:
                now = time.monotonic()
                try:
                    chunk = read_chunk(data)
                except UnreadableChunk as error:
                    raise not_a_stream(self._endpoint, self._blot(str(error))) from None
                if chunk.error is not None:
                    raise ServerFailed(
                        f"“{self._endpoint.name}” ended its answer with an error.",
                        f"The server said: {self._blot(chunk.error)[:400]}",
                        "Look into the server's log; a shorter prompt or fewer tokens may avoid it.",
                    )
                if chunk.done:
                    return
                self._watch.chunk(chunk, now)
                self._finish_reason = chunk.finish_reason or self._finish_reason
                if chunk.reasoning:
                    self._reasoning.append(chunk.reasoning)
                    yield Piece("reasoning", chunk.reasoning)
                if chunk.content:
                    self._text.append(chunk.content)
                    yield Piece("content", chunk.content)
            if raw is None:
                break
        # The end of the connection without [DONE]: right for servers that never send it, if a reason was given.
        if self._finish_reason is None:
            raise self._cut("The connection ended before the server said that it was complete.")

    def _opened(self, response: httpx.Response, watch: Stopwatch) -> None:
        self._response = response
        self._watch = watch

    async def _next_read(self, reads: AsyncIterator[bytes]) -> bytes | None:
        # From the last token, not the last read: keep-alive comments must not hide a stall.
        if self._watch.last_token is not None:
            clock, due = "between_tokens", self._watch.last_token + self._timeouts.between_tokens
        else:
            clock, due = "first_token", self._watch.started + self._timeouts.first_token
        try:
            return await _within(anext(reads, None), clock, due, self._deadline, self._endpoint, self._timeouts)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.StreamError, httpx.DecodingError) as error:
            raise self._cut(f"The connection broke: {_reason(error)}.") from None

    def _cut(self, why: str) -> StreamCut:
        return StreamCut(
            f"The answer of “{self._endpoint.name}” was cut off.",
            why,
            "The part that came is kept. See whether the server, or a proxy on the way, has stopped; then ask again.",
        )

    def _blot(self, words: str) -> str:
        return blot(words, self._key)


class Client:
    """A pool of connections and the rules above. Use one per event loop; `async with` closes it."""

    def __init__(self, timeouts: Timeouts | None = None, retries: int = 2) -> None:
        """retries: how often a request that the server has not begun is repeated. 0 inside a measured run."""
        self.timeouts = timeouts or Timeouts()
        self._retries = retries
        self._http = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            # Reads are timed by our own clocks; they know whether a token has come.
            timeout=httpx.Timeout(None, connect=self.timeouts.connect, write=self.timeouts.connect),
            # A site's proxy is for the outside. A server on this machine must not be sought through it.
            mounts={"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None},
            follow_redirects=False,
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def models(self, endpoint: Endpoint, key: SecretStr | None = None) -> tuple[str, ...]:
        """The names of the models that the server lists. Raises EndpointError."""
        key = key or endpoint.read_key()
        url = f"{endpoint.api_root}/models"
        try:
            try:
                response = await self._http.get(url, auth=_auth(key), timeout=self.timeouts.connect)
            except (httpx.RemoteProtocolError, httpx.ReadError):
                # A kept connection that the server had closed meanwhile, as some do after a 500.
                response = await self._http.get(url, auth=_auth(key), timeout=self.timeouts.connect)
        except httpx.HTTPError as error:
            raise _unreachable(endpoint, error) from None
        if response.status_code != 200:
            words = blot(refusals.server_words(response.content, response.headers.get("content-type", "")), key)
            raise refusals.error_for(endpoint, response.status_code, words, has_key=key is not None)
        try:
            listed = response.json()["data"]
            return tuple(str(item["id"]) for item in listed)
        except (ValueError, KeyError, TypeError):
            raise ServerFailed(
                f"“{endpoint.name}” ({endpoint.base_url}) lists its models in no known form.",
                "GET /v1/models gave no `data` list.",
                "Check that the URL is that of an OpenAI-compatible API.",
            ) from None

    @asynccontextmanager
    async def stream(
        self, endpoint: Endpoint, messages: Sequence[Message], *, key: SecretStr | None = None, **options: Any
    ) -> AsyncIterator[ChatStream]:
        """Ask, and iterate the answer as it is written.

        messages: OpenAI's, [{"role": "user", "content": "..."}].   key: used instead of what the endpoint names.
        options: further fields of the request, max_tokens or temperature for example.
        Raises EndpointError, at entry or while iterating. Leaving the block closes the connection.
        """
        key = key or endpoint.read_key()
        deadline = time.monotonic() + self.timeouts.total
        stream = ChatStream(endpoint, key, self.timeouts, deadline)
        body: dict[str, Any] = {
            "model": endpoint.model,
            "messages": [dict(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
        async with AsyncExitStack() as stack:
            response, watch = await self._open(endpoint, body, key, deadline, stack)
            stream._opened(response, watch)
            yield stream

    async def ask(
        self, endpoint: Endpoint, messages: Sequence[Message], *, key: SecretStr | None = None, **options: Any
    ) -> Answer:
        """The whole answer. As `stream`, for those who do not watch."""
        async with self.stream(endpoint, messages, key=key, **options) as stream:
            async for _ in stream:
                pass
            return stream.answer

    async def _open(
        self, endpoint: Endpoint, body: dict[str, Any], key: SecretStr | None, deadline: float, stack: AsyncExitStack
    ) -> tuple[httpx.Response, Stopwatch]:
        """The response with status 200, and the watch that was started for it. `stack` closes it."""
        attempt = 0
        while True:
            attempt += 1
            watch = Stopwatch(time.monotonic(), attempts=attempt)
            request = self._http.build_request(
                "POST",
                f"{endpoint.api_root}/chat/completions",
                json=body,
                headers={"Accept": "text/event-stream"},
                extensions={"trace": _trace(watch)},
            )
            sending = self._http.send(request, stream=True, auth=_auth(key))
            try:
                due = watch.started + self.timeouts.first_token
                response = await _within(sending, "first_token", due, deadline, endpoint, self.timeouts)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                # A kept connection that the server had closed meanwhile: nothing was answered yet.
                if attempt > self._retries:
                    raise _unreachable(endpoint, error) from None
                continue
            except httpx.ConnectTimeout:
                raise _timed_out("connect", self.timeouts, endpoint) from None
            except httpx.HTTPError as error:
                raise _unreachable(endpoint, error) from None
            kind = response.headers.get("content-type", "")
            if response.status_code == 200 and not kind.startswith(("application/json", "text/html")):
                stack.push_async_callback(response.aclose)
                return response, watch
            refusal = await self._refusal(endpoint, response, key)
            if "stream_options" in body and refusals.rejects_stream_options(response.status_code, refusal.why):
                body = {name: value for name, value in body.items() if name != "stream_options"}
                attempt -= 1
                continue
            wait = _retry_wait(refusal, attempt)
            retryable = response.status_code in refusals.RETRYABLE and attempt <= self._retries
            if not retryable or wait > _LONGEST_RETRY_WAIT or time.monotonic() + wait > deadline:
                raise refusal
            await asyncio.sleep(wait)

    async def _refusal(self, endpoint: Endpoint, response: httpx.Response, key: SecretStr | None) -> EndpointError:
        raw = b""
        try:
            async for piece in response.aiter_bytes():
                raw += piece
                if len(raw) > _ERROR_BODY:
                    break
        except httpx.HTTPError:
            pass  # the status is known; what else the server wanted to say is lost with the connection
        finally:
            await response.aclose()
        words = blot(refusals.server_words(raw, response.headers.get("content-type", "")), key)
        if response.status_code == 200:
            return not_a_stream(endpoint, words)
        available = None
        if response.status_code == 404 or response.status_code >= 500:
            try:
                available = await self.models(endpoint, key)
            except EndpointError:
                available = None
        return refusals.error_for(
            endpoint,
            response.status_code,
            words,
            available=available,
            retry_after=refusals.retry_after_seconds(response.headers.get("retry-after")),
            has_key=key is not None,
        )


def not_a_stream(endpoint: Endpoint, seen: str) -> ServerFailed:
    return ServerFailed(
        f"“{endpoint.name}” answered with something that is no chat stream.",
        f"It sent: {seen}",
        "Check that the URL is that of an OpenAI-compatible API, and that the server streams.",
    )


def blot(words: str, key: SecretStr | None) -> str:
    """`words` with the key, should a server have repeated it, made unreadable."""
    value = key.get_secret_value() if key is not None else ""
    return words.replace(value, "•••") if value else words


def _auth(key: SecretStr | None) -> httpx.Auth | None:
    return _Bearer(key) if key is not None else None


def _identity(response: httpx.Response) -> bool:
    return response.headers.get("content-encoding", "identity") == "identity"


def _trace(watch: Stopwatch) -> Any:
    async def traced(name: str, info: dict[str, Any]) -> None:
        # http11 or http2: the connection is open, the request goes out.
        if name.endswith("send_request_headers.started"):
            watch.sent(time.monotonic())

    return traced


def _retry_wait(refusal: EndpointError, attempt: int) -> float:
    if isinstance(refusal, RateLimited) and refusal.retry_after is not None:
        return refusal.retry_after
    return 0.5 * 2 ** (attempt - 1)


async def _within(
    awaitable: Awaitable[T], clock: str, due: float, deadline: float, endpoint: Endpoint, timeouts: Timeouts
) -> T:
    """The result, if it comes before `due`, a moment of the monotonic clock, and before the deadline of the whole."""
    if deadline < due:
        clock, due = "total", deadline
    try:
        return await asyncio.wait_for(awaitable, max(due - time.monotonic(), 0.001))
    except asyncio.TimeoutError:  # noqa: UP041  (another class before Python 3.11)
        raise _timed_out(clock, timeouts, endpoint) from None


_CLOCKS = {
    "connect": (
        "No connection to {where} within {seconds:g} s.",
        "Nothing answered: the machine may be off, or a network policy drops the packets.",
        "Check host and port. From a pod, private addresses are closed unless the site opens them.",
    ),
    "first_token": (
        "{where} sent no token within {seconds:g} s.",
        "It accepted the request; its queue may be long, its model still loading, or the prompt very long.",
        "Ask again later, or allow more with Timeouts(first_token=…).",
    ),
    "between_tokens": (
        "{where} stopped writing for {seconds:g} s in the middle of its answer.",
        "The stream stalled though the connection is open.",
        "The part that came is kept. Ask again, or allow more with Timeouts(between_tokens=…).",
    ),
    "total": (
        "The answer of {where} took longer than {seconds:g} s in all.",
        "The limit for a whole answer was reached.",
        "Ask for fewer tokens (max_tokens), or allow more with Timeouts(total=…).",
    ),
}


def _timed_out(clock: str, timeouts: Timeouts, endpoint: Endpoint) -> TimedOut:
    where = f"“{endpoint.name}” ({endpoint.base_url})"
    what, why, remedy = _CLOCKS[clock]
    seconds = {
        "connect": timeouts.connect,
        "first_token": timeouts.first_token,
        "between_tokens": timeouts.between_tokens,
        "total": timeouts.total,
    }[clock]
    return TimedOut(what.format(where=where, seconds=seconds), why, remedy, clock=clock)


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _unreachable(endpoint: Endpoint, error: Exception) -> EndpointError:
    return Unreachable(
        f"“{endpoint.name}” cannot be reached at {endpoint.base_url}.",
        f"{_reason(error)}.",
        "Check that the server runs and that host and port are right. From a pod, private addresses are closed "
        "unless the site opens them.",
    )
