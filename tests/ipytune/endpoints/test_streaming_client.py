"""The client against a server whose every byte is known."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from ipytune.endpoints import (
    BadRequest,
    Client,
    Endpoint,
    KeyMissing,
    ModelNotFound,
    RateLimited,
    ServerFailed,
    StreamCut,
    TimedOut,
    Timeouts,
    Unauthorized,
    Unreachable,
)
from tests.ipytune.endpoints.mock_server import CUT, DONE, Mock, delta, event, reply, stream, usage, words

USER = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(Timeouts(connect=2, first_token=5, between_tokens=5, total=20)) as made:
        yield made


async def test_an_ordinary_answer(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    answer = await client.ask(endpoint, USER, max_tokens=9)
    assert (answer.text, answer.finish_reason) == ("hello there", "stop")
    assert (answer.metrics.output_tokens, answer.metrics.prompt_tokens, answer.metrics.estimated) == (2, 5, False)
    sent = mock.requests[0].body
    assert sent["max_tokens"] == 9 and sent["stream"] is True and sent["stream_options"] == {"include_usage": True}


async def test_a_word_split_inside_a_character_and_events_joined_in_one_read(
    client: Client, endpoint: Endpoint, mock: Mock
) -> None:
    raw = delta("Zürich ") + delta("🏔")
    cut = raw.index("ü".encode()) + 1
    mock.replies(stream(b": keep-alive\n\n", raw[:cut], raw[cut:-5], raw[-5:] + delta(finish_reason="stop") + DONE))
    answer = await client.ask(endpoint, USER)
    assert answer.text == "Zürich 🏔"
    assert answer.metrics.chunks == 2


async def test_without_usage_the_count_is_an_estimate(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(stream(delta("a"), delta("b"), delta(finish_reason="stop"), DONE))
    metrics = (await client.ask(endpoint, USER)).metrics
    assert (metrics.output_tokens, metrics.estimated) == (2, True)


async def test_a_role_is_no_first_token_and_reasoning_is_one(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    gates = threading.Event(), threading.Event(), threading.Event()
    mock.replies(
        stream(
            delta(role="assistant"),
            gates[0],
            delta(reasoning_content="hm"),
            gates[1],
            delta("yes"),
            gates[2],
            usage(2),
            delta(finish_reason="stop"),
            DONE,
        )
    )
    async with client.stream(endpoint, USER) as answering:
        assert answering.answer.metrics.ttft is None
        gates[0].set()
        async for piece in answering:
            if piece.kind == "reasoning":
                assert answering.answer.metrics.ttft is not None
                assert answering.answer.metrics.ttfot is None
                gates[1].set()
            else:
                whole = answering.answer.metrics.e2e
                gates[2].set()
    answer = answering.answer
    assert (answer.reasoning, answer.text) == ("hm", "yes")
    assert answer.metrics.ttfot is not None and answer.metrics.ttft is not None
    assert answer.metrics.ttfot > answer.metrics.ttft
    assert answer.metrics.e2e == whole  # the chunk with the usage does not end the clock


async def test_a_server_without_done_ends_with_its_reason(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(stream(delta("a"), delta(finish_reason="length")))
    assert (await client.ask(endpoint, USER)).finish_reason == "length"


@pytest.mark.parametrize("ending", [[], [CUT]])
async def test_a_cut_stream_is_an_error_that_keeps_what_came(
    client: Client, endpoint: Endpoint, mock: Mock, ending: list[object]
) -> None:
    mock.replies(stream(delta("half"), *ending))
    with pytest.raises(StreamCut):
        async with client.stream(endpoint, USER) as answering:
            async for _ in answering:
                pass
    assert answering.answer.text == "half"


async def test_half_an_event_at_the_end_is_a_cut(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(stream(delta("half"), b'data: {"choices": [{"del'))
    with pytest.raises(StreamCut, match="middle of an event"):
        await client.ask(endpoint, USER)


@pytest.mark.parametrize("ending", [[CUT], [b'data: {"usage'], [b": bye\n", CUT]])
async def test_what_breaks_after_the_finish_reason_takes_nothing_from_the_answer(
    client: Client, endpoint: Endpoint, mock: Mock, ending: list[object]
) -> None:
    mock.replies(stream(delta("whole"), delta(finish_reason="stop"), *ending))
    answer = await client.ask(endpoint, USER)
    assert (answer.text, answer.finish_reason, answer.metrics.estimated) == ("whole", "stop", True)


async def test_a_server_that_never_closes_after_its_finish_reason_is_left(endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(stream(delta("whole"), delta(finish_reason="stop"), threading.Event()))
    async with Client(Timeouts(between_tokens=0.1)) as client:
        assert (await client.ask(endpoint, USER)).finish_reason == "stop"
    assert await asyncio.to_thread(mock.client_left.wait, 5)


async def test_what_is_no_json_later_keeps_what_came(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(stream(delta("a") + b"data: {nonsense}\n\n"))
    with pytest.raises(ServerFailed, match="a part of its answer that cannot be read"):
        async with client.stream(endpoint, USER) as answering:
            async for _ in answering:
                pass
    assert answering.answer.text == "a"


async def test_an_error_inside_the_stream(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(stream(delta("a"), event({"error": {"message": "CUDA out of memory"}})))
    with pytest.raises(ServerFailed, match="CUDA out of memory"):
        await client.ask(endpoint, USER)


@pytest.mark.parametrize(
    "script", [reply(200, {"choices": []}), reply(200, b"<html>login</html>"), stream(b"data: nonsense\n\n")]
)
async def test_what_is_no_stream_is_said_so(
    client: Client, endpoint: Endpoint, mock: Mock, script: list[object]
) -> None:
    mock.replies(script)
    with pytest.raises(ServerFailed, match="no chat stream"):
        await client.ask(endpoint, USER)


async def test_nothing_listens() -> None:
    async with Client() as client:
        with pytest.raises(Unreachable, match="127.0.0.1:9"):
            await client.ask(Endpoint(name="e", base_url="http://127.0.0.1:9", model="m"), USER)


async def test_unauthorized_never_repeats_the_key(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(reply(401, {"error": {"message": "bad key SECRET-123"}}))
    with pytest.raises(Unauthorized) as caught:
        await client.ask(endpoint, USER, key=SecretStr("SECRET-123"))
    assert mock.requests[0].headers["authorization"] == "Bearer SECRET-123"
    assert "SECRET-123" not in str(caught.value) and "•••" in caught.value.why


async def test_an_unknown_model_lists_those_there_are(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.models = ("llama", "qwen")
    mock.replies(reply(404, {"detail": "no such model"}))
    with pytest.raises(ModelNotFound, match="llama, qwen") as caught:
        await client.ask(endpoint, USER)
    assert caught.value.available == ("llama", "qwen")


async def test_too_many_requests_are_repeated_when_the_server_says_when(
    client: Client, endpoint: Endpoint, mock: Mock
) -> None:
    mock.replies(reply(429, {}, "Retry-After: 0.01\r\n"), reply(503, {}, ""), words("now"))
    answer = await client.ask(endpoint, USER)
    assert (answer.text, answer.metrics.attempts) == ("now", 3)


async def test_a_long_wait_is_shown_instead_of_waited_for(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(reply(429, {}, "Retry-After: 3600\r\n"))
    with pytest.raises(RateLimited) as caught:
        await client.ask(endpoint, USER)
    assert caught.value.retry_after == 3600 and len(mock.requests) == 1


async def test_nothing_is_repeated_once_an_answer_has_begun(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(stream(delta("a"), CUT), words("again"))
    with pytest.raises(StreamCut):
        await client.ask(endpoint, USER)
    assert len(mock.requests) == 1


async def test_a_measured_run_repeats_nothing(endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(reply(503, {"error": "busy"}))
    async with Client(retries=0) as client:
        with pytest.raises(ServerFailed, match="busy"):
            await client.ask(endpoint, USER)
    assert len(mock.requests) == 1


async def test_a_server_that_knows_no_stream_options_is_asked_without(
    client: Client, endpoint: Endpoint, mock: Mock
) -> None:
    mock.replies(reply(422, {"detail": "Unexpected field: stream_options"}), words("fine"))
    answer = await client.ask(endpoint, USER)
    assert answer.text == "fine" and answer.metrics.attempts == 1
    assert "stream_options" not in mock.requests[1].body


async def test_other_refusals_are_passed_on(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(reply(400, {"error": {"message": "max_tokens is too large"}}))
    with pytest.raises(BadRequest, match="max_tokens is too large"):
        await client.ask(endpoint, USER)


async def test_a_redirect_is_not_followed_with_the_key(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(reply(307, {}, "Location: http://127.0.0.1:9/\r\n"))
    with pytest.raises(BadRequest, match="redirects"):
        await client.ask(endpoint, USER, key=SecretStr("k"))
    assert len(mock.requests) == 1


@pytest.mark.parametrize(
    ("timeouts", "steps", "clock"),
    [
        (Timeouts(first_token=0.1), [delta(role="assistant")], "first_token"),
        (Timeouts(between_tokens=0.1), [delta("a")], "between_tokens"),
        (Timeouts(total=0.1), [delta("a")], "total"),
    ],
)
async def test_a_stall_is_noticed_by_the_right_clock_in_spite_of_keepalives(
    endpoint: Endpoint, mock: Mock, timeouts: Timeouts, steps: list[bytes], clock: str
) -> None:
    never = threading.Event()
    mock.replies(stream(*steps, *[b": ping\n\n"] * 500, never))
    async with Client(timeouts) as client:
        with pytest.raises(TimedOut) as caught:
            await client.ask(endpoint, USER)
    assert caught.value.clock == clock
    assert await asyncio.to_thread(mock.client_left.wait, 5)


async def test_cancelling_closes_the_connection_at_the_server(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    never, begun = threading.Event(), asyncio.Event()
    mock.replies(stream(delta("a"), never))

    async def ask() -> None:
        async with client.stream(endpoint, USER) as answering:
            async for _ in answering:
                begun.set()

    task = asyncio.create_task(ask())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(mock.client_left.wait, 5)


async def test_leaving_the_loop_early_closes_the_connection(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(stream(delta("a"), threading.Event()))
    async with client.stream(endpoint, USER) as answering:
        async for _ in answering:
            break
    assert await asyncio.to_thread(mock.client_left.wait, 5)


async def test_a_missing_key_is_named_before_anything_is_sent(client: Client, endpoint: Endpoint, mock: Mock) -> None:
    with pytest.raises(KeyMissing, match="OBERALP_NO_SUCH_KEY"):
        await client.ask(endpoint.model_copy(update={"key_env": "OBERALP_NO_SUCH_KEY"}), USER)
    assert mock.requests == []
