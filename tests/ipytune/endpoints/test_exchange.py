"""Exchanges go on in the background, can be looked at, and are cancelled down to the server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from ipytune.endpoints import Endpoint, ServerFailed, chat, models
from ipytune.endpoints.exchange import Cancelled, Exchange, State
from tests.ipytune.endpoints.mock_server import Mock, delta, event, reply, stream, words

USER = [{"role": "user", "content": "hi"}]


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        time.sleep(0.005)


def test_chat_answers_with_and_without_a_running_loop(endpoint: Endpoint) -> None:
    pieces: list[str] = []
    assert chat(endpoint, "hi", on_piece=lambda piece: pieces.append(piece.text)).text == "hello there"
    assert pieces == ["hello", " there"]

    async def inside() -> str:
        return chat(endpoint, "hi").text

    assert asyncio.run(inside()) == "hello there"


def test_the_models_of_a_server_are_listed(endpoint: Endpoint, mock: Mock) -> None:
    mock.models = ("a", "b")
    assert models(endpoint) == ("a", "b")


def test_an_exchange_shows_what_has_come_so_far(endpoint: Endpoint, mock: Mock) -> None:
    gate = threading.Event()
    mock.replies(words("one two three", gate))
    exchange = Exchange(endpoint, USER)
    until(lambda: exchange.view().text == "one")
    assert exchange.view().state is State.WRITING
    gate.set()
    assert exchange.wait(5).text == "one two three"
    assert exchange.view().state is State.DONE
    assert exchange.view().metrics.output_tokens == 3


def test_cancelling_keeps_the_text_and_closes_the_connection(endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(words("one two three", threading.Event()))
    exchange = Exchange(endpoint, USER)
    until(lambda: exchange.view().text == "one")
    exchange.cancel()
    with pytest.raises(Cancelled):
        exchange.wait(5)
    assert mock.client_left.wait(5)
    assert (exchange.view().state, exchange.view().text) == (State.CANCELLED, "one")


def test_a_failure_is_in_the_view_and_raised_by_wait(endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(reply(500, {"error": "boom"}))
    exchange = Exchange(endpoint, USER)
    with pytest.raises(ServerFailed, match="boom"):
        exchange.wait(5)
    assert exchange.view().state is State.FAILED and exchange.view().error is not None


def test_calls_of_tools_and_logprobs_are_in_the_view(endpoint: Endpoint, mock: Mock) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "now", "arguments": "{}"}}
    logprobs = {"content": [{"token": "x", "logprob": -1.0}]}
    chunk = {"choices": [{"delta": {"content": "x", "tool_calls": [call]}, "logprobs": logprobs}]}
    mock.replies(stream(event(chunk), delta(finish_reason="tool_calls")))
    exchange = Exchange(endpoint, USER)
    exchange.wait(5)
    assert [each.name for each in exchange.view().tool_calls] == ["now"]
    assert [each.logprob for each in exchange.view().logprobs] == [-1.0]
