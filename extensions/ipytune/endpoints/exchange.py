"""One prompt to one endpoint, going on in the background: started, looked at, cancelled, waited for.

The controller under the chat and the comparison panel; it knows no widget. Every method may be called from any thread.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pydantic import SecretStr

from ipytune.endpoints import background
from ipytune.endpoints.client import Answer, ChatStream, Message
from ipytune.endpoints.errors import EndpointError, KeyMissing, ServerFailed
from ipytune.endpoints.keys import blot
from ipytune.endpoints.logprobs import TokenLogprob
from ipytune.endpoints.metrics import Metrics
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.tool_calls import ToolCall


class State(str, Enum):
    WAITING = "waiting"  # no token yet
    WRITING = "writing"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in (State.DONE, State.CANCELLED, State.FAILED)


class Cancelled(EndpointError):
    """The answer was cancelled; what had come is in the exchange's view."""


@dataclass(frozen=True)
class View:
    """An exchange at one moment. `waited` is seconds since it began; `error` is set when it failed."""

    endpoint: Endpoint
    state: State = State.WAITING
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    metrics: Metrics = field(default_factory=Metrics)
    waited: float = 0.0
    error: EndpointError | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class Exchange:
    """Starts at once. Options are further fields of the request (max_tokens, temperature)."""

    def __init__(
        self, endpoint: Endpoint, messages: Sequence[Message], *, key: SecretStr | None = None, **options: Any
    ) -> None:
        self.endpoint = endpoint
        self._messages = list(messages)
        self._key = key
        self._options = options
        self._lock = threading.Lock()
        self._stream: ChatStream | None = None
        self._answer: Answer | None = None
        self._state = State.WAITING
        self._error: EndpointError | None = None
        self._began = time.monotonic()
        self._ended: float | None = None
        self._future = background.spawn(self._go())

    def cancel(self) -> None:
        """Stop the answer: the connection is closed, so that the server stops writing. Harmless when it has ended."""
        self._future.cancel()

    def wait(self, timeout: float | None = None) -> Answer:
        """The whole answer. Raises its EndpointError, Cancelled, or TimeoutError when it is still being written."""
        try:
            self._future.result(timeout)
        except concurrent.futures.CancelledError:
            pass  # told below, once the work has noted how far it came
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"“{self.endpoint.name}” is still answering after {timeout:g} s.") from None
        except KeyboardInterrupt:
            self.cancel()
            raise
        view = self.view()
        if view.error is not None:
            raise view.error
        if self._answer is None or view.state is State.CANCELLED:
            raise Cancelled(f"The answer of “{self.endpoint.name}” was cancelled.", "", "Ask again.")
        return self._answer

    @property
    def done(self) -> bool:
        return self._future.done()

    def view(self) -> View:
        with self._lock:
            answer = self._answer or (self._stream.answer if self._stream is not None else Answer(self.endpoint))
            state = self._state
            if self._future.cancelled() and not state.final:
                state = State.CANCELLED
            if state is State.WAITING and answer.metrics.ttft is not None:
                state = State.WRITING
            return View(
                endpoint=self.endpoint,
                state=state,
                text=answer.text,
                reasoning=answer.reasoning,
                finish_reason=answer.finish_reason,
                metrics=answer.metrics,
                waited=(self._ended or time.monotonic()) - self._began,
                error=self._error,
                tool_calls=answer.tool_calls,
                logprobs=answer.logprobs,
            )

    async def _go(self) -> None:
        state = State.CANCELLED  # what leaves here in no other way was cancelled
        error: EndpointError | None = None
        try:
            async with background.shared_client().stream(
                self.endpoint, self._messages, key=self._key, **self._options
            ) as stream:
                with self._lock:
                    self._stream = stream
                async for _ in stream:
                    pass
            state = State.DONE
        except EndpointError as caught:
            state, error = State.FAILED, caught
        except Exception as caught:  # a panel must show what nobody foresaw instead of waiting for ever
            state = State.FAILED
            error = ServerFailed(
                f"Asking “{self.endpoint.name}” failed in an unexpected way.",
                f"{type(caught).__name__}: {self._without_key(str(caught))}",
                "Please report this.",
            )
        finally:
            with self._lock:
                self._answer = self._stream.answer if self._stream is not None else None
                self._state, self._error, self._ended = state, error, time.monotonic()

    def _without_key(self, words: str) -> str:
        try:
            return blot(words, self._key or self.endpoint.read_key())
        except KeyMissing:
            return words
