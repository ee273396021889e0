"""Streams answers from any server that speaks OpenAI's /v1/chat/completions or /v1/completions.

What it promises:
- Four clocks: connect, first token, between tokens, total. A stream that stalls after HTTP 200 is noticed.
- A request is repeated only before the first byte of an answer, and only when the server has begun nothing.
- Leaving `stream()` early, by an exception, a cancellation or a break, closes the connection, so that the server stops.
- Errors are those of errors.py. Keys stay out of them, of logs and of reprs.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any

import httpx
from pydantic import SecretStr

from ipytune.endpoints.answer import Answer, Piece
from ipytune.endpoints.asking import CHAT, COMPLETIONS, Asked, Message, chat_body, completion_body
from ipytune.endpoints.clocks import Timeouts
from ipytune.endpoints.errors import EndpointError, KeyMissing
from ipytune.endpoints.health_check import Health, health_of
from ipytune.endpoints.keys import bearer, blot
from ipytune.endpoints.listing import listed_models
from ipytune.endpoints.opening import open_stream
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.stream import ChatStream
from ipytune.endpoints.unreachable import DIRECT, trusted

__all__ = ["Answer", "ChatStream", "Client", "Message", "Piece", "Timeouts", "blot"]


class Client:
    """A pool of connections and the rules above. Use one per event loop; `async with` closes it."""

    def __init__(self, timeouts: Timeouts | None = None, retries: int = 2) -> None:
        """retries: how often a request that the server has not begun is repeated. 0 inside a measured run."""
        self.timeouts = timeouts or Timeouts()
        self._retries = retries
        self._http = httpx.AsyncClient(
            verify=trusted(),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            # Reads are timed by our own clocks; they know whether a token has come.
            timeout=httpx.Timeout(None, connect=self.timeouts.connect, write=self.timeouts.connect),
            mounts=DIRECT,
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

    @asynccontextmanager
    async def stream(
        self, endpoint: Endpoint, messages: Sequence[Message], *, key: SecretStr | None = None, **options: Any
    ) -> AsyncIterator[ChatStream]:
        """Ask, and iterate the answer as it is written.

        messages: OpenAI's, [{"role": "user", "content": "..."}].   key: used instead of what the endpoint names.
        options: further fields of the request: max_tokens, temperature, tools, response_format, logprobs and so on.
        Raises EndpointError, at entry or while iterating. Leaving the block closes the connection.
        """
        async with self._asked(CHAT, endpoint, chat_body(endpoint, messages, options), key) as stream:
            yield stream

    @asynccontextmanager
    async def stream_completion(
        self, endpoint: Endpoint, prompt: str, *, key: SecretStr | None = None, **options: Any
    ) -> AsyncIterator[ChatStream]:
        """As `stream`, over /v1/completions: the model goes on with `prompt`, without a chat template.

        options: also echo=True with logprobs=N, which scores the prompt itself where a server can.
        """
        async with self._asked(COMPLETIONS, endpoint, completion_body(endpoint, prompt, options), key) as stream:
            yield stream

    async def ask(
        self, endpoint: Endpoint, messages: Sequence[Message], *, key: SecretStr | None = None, **options: Any
    ) -> Answer:
        """The whole answer. As `stream`, for those who do not watch."""
        async with self.stream(endpoint, messages, key=key, **options) as stream:
            async for _ in stream:
                pass
            return stream.answer

    async def complete(
        self, endpoint: Endpoint, prompt: str, *, key: SecretStr | None = None, **options: Any
    ) -> Answer:
        """The whole completion. As `stream_completion`, for those who do not watch."""
        async with self.stream_completion(endpoint, prompt, key=key, **options) as stream:
            async for _ in stream:
                pass
            return stream.answer

    async def models(self, endpoint: Endpoint, key: SecretStr | None = None) -> tuple[str, ...]:
        """The names of the models that the server lists. Raises EndpointError."""
        return await self._models(endpoint, key or endpoint.read_key())

    async def health(self, endpoint: Endpoint, key: SecretStr | None = None) -> Health:
        """Whether the endpoint answers and lists its model. Asks for no token; raises nothing."""
        missing: EndpointError | None = None
        try:
            key = key or endpoint.read_key()
            bearer(endpoint, key)
        except KeyMissing as error:
            key, missing = None, error
        return await health_of(endpoint, self._models(endpoint, key), missing)

    @asynccontextmanager
    async def _asked(
        self, route: str, endpoint: Endpoint, body: Mapping[str, Any], key: SecretStr | None
    ) -> AsyncIterator[ChatStream]:
        key = key or endpoint.read_key()
        asked = Asked(endpoint, route, body, key, self.timeouts, time.monotonic() + self.timeouts.total)
        stream = ChatStream(asked)
        async with AsyncExitStack() as stack:
            stream.begin(*await open_stream(self._http, asked, self._retries, self._models, stack))
            yield stream

    async def _models(self, endpoint: Endpoint, key: SecretStr | None) -> tuple[str, ...]:
        return await listed_models(self._http, endpoint, key, self.timeouts)
