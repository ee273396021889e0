"""Asynchronous work from a notebook's cells: one thread with an event loop of its own.

A kernel's own loop runs already, so `asyncio.run` fails there, and it schedules nothing of a cell's once that cell has
ended (ipykernel #1510). Here requests go on, and can be cancelled, whatever the kernel does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pydantic import SecretStr

from ipytune.endpoints.client import Answer, ChatStream, Client, Message, Piece, Timeouts
from ipytune.endpoints.health_check import Health
from ipytune.endpoints.records import Endpoint

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_client: Client | None = None


def spawn(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start `work` on the background loop. Cancelling the future cancels the work."""
    return asyncio.run_coroutine_threadsafe(work, _running_loop())


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. An interrupt (Ctrl-C, the kernel's Stop) cancels it, so that a server stops writing."""
    future = spawn(work)
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise


def shared_client() -> Client:
    """The client whose connections all notebook calls share. Only for work on the background loop."""
    global _client
    with _lock:
        if _client is None:
            _client = Client()
        return _client


def chat(
    endpoint: Endpoint,
    prompt: str | Sequence[Message],
    *,
    on_piece: Callable[[Piece], None] | None = None,
    key: SecretStr | None = None,
    timeouts: Timeouts | None = None,
    **options: Any,
) -> Answer:
    """Ask and wait for the whole answer; works in a cell and in a script.

    prompt: the user's words, or OpenAI messages.   on_piece: called for every piece, in another thread.
    options: further fields of the request (max_tokens, temperature, tools).   Raises EndpointError.
    """
    messages = as_messages(prompt)
    return run(_consume(lambda client: client.stream(endpoint, messages, key=key, **options), on_piece, timeouts))


def complete(
    endpoint: Endpoint,
    prompt: str,
    *,
    on_piece: Callable[[Piece], None] | None = None,
    key: SecretStr | None = None,
    timeouts: Timeouts | None = None,
    **options: Any,
) -> Answer:
    """As `chat`, but the model goes on with `prompt` (/v1/completions), without a chat template."""

    def begin(client: Client) -> AbstractAsyncContextManager[ChatStream]:
        return client.stream_completion(endpoint, prompt, key=key, **options)

    return run(_consume(begin, on_piece, timeouts))


def health(endpoint: Endpoint, *, key: SecretStr | None = None) -> Health:
    """Whether the endpoint answers and lists its model; costs no token. Raises nothing."""

    async def asked() -> Health:
        return await shared_client().health(endpoint, key)

    return run(asked())


def models(endpoint: Endpoint, *, key: SecretStr | None = None) -> tuple[str, ...]:
    """The names of the models that the server lists. Raises EndpointError."""

    async def listed() -> tuple[str, ...]:
        return await shared_client().models(endpoint, key)

    return run(listed())


def as_messages(prompt: str | Sequence[Message]) -> list[Message]:
    """OpenAI messages from the user's words, or a copy of those given."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


async def _consume(
    begin: Callable[[Client], AbstractAsyncContextManager[ChatStream]],
    on_piece: Callable[[Piece], None] | None,
    timeouts: Timeouts | None,
) -> Answer:
    if timeouts is not None:
        async with Client(timeouts) as client:
            return await _consumed(begin(client), on_piece)
    return await _consumed(begin(shared_client()), on_piece)


async def _consumed(
    beginning: AbstractAsyncContextManager[ChatStream], on_piece: Callable[[Piece], None] | None
) -> Answer:
    async with beginning as stream:
        async for piece in stream:
            if on_piece is not None:
                on_piece(piece)
        return stream.answer


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="ipytune-endpoints", daemon=True).start()
        return _loop
