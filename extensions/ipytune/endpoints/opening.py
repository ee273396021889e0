"""From a request to a stream that has begun: sending, asking again where that is safe, and what a refusal means.

A request is repeated only before the first byte of an answer, and only when the server has begun nothing: a connection
that broke before any answer, or a status that says "not now". A gateway whose budget is used up is not asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
from pydantic import SecretStr

from ipytune.endpoints import refusals
from ipytune.endpoints.asking import Asked, encoded
from ipytune.endpoints.clocks import before, within
from ipytune.endpoints.errors import BadRequest, BudgetExceeded, EndpointError, RateLimited, ServerFailed
from ipytune.endpoints.keys import bearer, blot, unlogged
from ipytune.endpoints.metrics import Stopwatch
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.unreachable import no_connection

Listing = Callable[[Endpoint, SecretStr | None], Awaitable[tuple[str, ...]]]

_LONGEST_RETRY_WAIT = 20.0  # seconds; a server that asks for more gets its 429 shown instead
_ERROR_BODY = 64 * 1024


async def open_stream(
    http: httpx.AsyncClient, asked: Asked, retries: int, models: Listing, stack: AsyncExitStack
) -> tuple[httpx.Response, Stopwatch]:
    """The response with status 200, and the watch that was started for it. `stack` closes it. Raises EndpointError."""
    body = dict(asked.body)
    auth = bearer(asked.endpoint, asked.key)
    attempt = 0
    while True:
        attempt += 1
        content = encoded(body)
        watch = Stopwatch(time.monotonic(), attempts=attempt)
        try:
            response = await _send(http, asked, content, auth, watch)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            # Often a kept connection that the server had closed meanwhile: nothing was answered yet.
            if attempt > retries:
                raise no_connection(asked.endpoint, error, asked.key) from None
            continue
        kind = response.headers.get("content-type", "")
        if response.status_code == 200 and not kind.startswith(("application/json", "text/html")):
            stack.push_async_callback(response.aclose)
            return response, watch
        status = response.status_code
        refusal = await _refusal(asked, response, models)
        if "stream_options" in body and refusals.rejects_stream_options(status, refusal.why):
            del body["stream_options"]
            attempt -= 1
            continue
        wait = _retry_wait(refusal, attempt)
        retryable = status in refusals.RETRYABLE and not isinstance(refusal, BudgetExceeded) and attempt <= retries
        if not retryable or wait > _LONGEST_RETRY_WAIT or time.monotonic() + wait > asked.deadline:
            raise refusal
        await asyncio.sleep(wait)


def not_a_stream(endpoint: Endpoint, seen: str) -> ServerFailed:
    return ServerFailed(
        f"“{endpoint.name}” answered with something that is no chat stream.",
        f"It sent: {seen}",
        "Check that the URL is that of an OpenAI-compatible API, and that the server streams.",
    )


def no_url(endpoint: Endpoint) -> BadRequest:
    return BadRequest(
        f"“{endpoint.name}” has a URL that cannot be asked.",
        f"{endpoint.base_url} is no complete http:// or https:// URL.",
        "Write it as http://HOST:PORT/v1.",
    )


async def _send(
    http: httpx.AsyncClient, asked: Asked, content: bytes, auth: httpx.Auth | None, watch: Stopwatch
) -> httpx.Response:
    try:
        request = http.build_request(
            "POST",
            asked.url,
            content=content,
            headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
            extensions={"trace": _trace(watch)},
        )
        due = watch.started + asked.timeouts.first_token
        with unlogged(asked.key):
            sending = asyncio.ensure_future(http.send(request, stream=True, auth=auth))
            return await _or_closed(sending, before(sending, "first_token", due, asked.deadline, asked.waiting))
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        raise
    except httpx.ConnectTimeout:
        raise asked.waiting.timed_out("connect") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise no_url(asked.endpoint) from None
    except httpx.HTTPError as error:
        raise no_connection(asked.endpoint, error, asked.key) from None


async def _or_closed(sending: asyncio.Future[httpx.Response], waiting: Awaitable[httpx.Response]) -> httpx.Response:
    """The response; a cancellation that comes just as it does closes it, or its server would go on writing."""
    try:
        return await waiting
    except asyncio.CancelledError:
        if sending.done() and not sending.cancelled() and sending.exception() is None:
            await sending.result().aclose()
        raise


async def _refusal(asked: Asked, response: httpx.Response, models: Listing) -> EndpointError:
    raw = b""
    try:
        with unlogged(asked.key):
            raw = await within(start_of(response, _ERROR_BODY), asked.timeouts.connect)
    except (httpx.HTTPError, asyncio.TimeoutError):  # noqa: UP041  (another class before Python 3.11)
        pass  # the status is known; what else the server wanted to say is lost
    finally:
        await response.aclose()
    status, headers = response.status_code, response.headers
    words = refusals.server_words(raw, headers.get("content-type", ""), asked.key)
    if status == 200:
        return not_a_stream(asked.endpoint, words)
    available = None
    if refusals.worth_listing(status, words):
        try:
            available = await models(asked.endpoint, asked.key)
        except EndpointError:
            available = None
    return refusals.error_for(
        asked.endpoint,
        status,
        words,
        available=available,
        retry_after=refusals.retry_after_seconds(headers.get("retry-after"), headers.get("date")),
        has_key=asked.key is not None,
        route=asked.route,
        location=blot(headers.get("location", ""), asked.key),
    )


async def start_of(response: httpx.Response, longest: int) -> bytes:
    """The body, or its first `longest` bytes and a little more: no server fills this process's memory."""
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        pieces.append(piece)
        size += len(piece)
        if size > longest:
            break
    return b"".join(pieces)


def _trace(watch: Stopwatch) -> Any:
    async def traced(name: str, info: dict[str, Any]) -> None:
        # http11 or http2: the connection is open, the request goes out.
        if name.endswith("send_request_headers.started"):
            watch.sent(time.monotonic())

    return traced


def _retry_wait(refusal: EndpointError, attempt: int) -> float:
    if isinstance(refusal, RateLimited) and refusal.retry_after is not None:
        return refusal.retry_after
    return float(0.5 * 2 ** (attempt - 1))
