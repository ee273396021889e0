"""The client against ipytune.mock, over real sockets: clocks, cancelling, what is repeated, connections used again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from ipytune.endpoints import (
    BudgetExceeded,
    Client,
    Endpoint,
    ModelNotFound,
    RateLimited,
    ServerFailed,
    StreamCut,
    TimedOut,
    Timeouts,
    Unauthorized,
)
from ipytune.mock import Behaviour, MockServer, start_mock

USER = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with start_mock(Behaviour(models=("mock", "other")), process=False) as running:
        yield running


@pytest.fixture
def usual(server: MockServer) -> Iterator[MockServer]:
    """The server as it was when the module began, for the test and after it."""
    server.reset()
    yield server
    plain = Behaviour(models=("mock", "other")).as_json()
    server.behave(**{name: value for name, value in plain.items() if name != "text"})


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(Timeouts(connect=5, first_token=20, between_tokens=20, total=60)) as made:
        yield made


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "the condition did not come about"
        await asyncio.sleep(0.01)


async def test_chat_and_completion_agree_with_what_the_server_counted(client: Client, usual: MockServer) -> None:
    usual.behave(tokens=12)
    chatted = await client.ask(usual.endpoint(), USER)
    completed = await client.complete(usual.endpoint(), "Once upon a time")
    assert chatted.metrics.output_tokens == completed.metrics.output_tokens == 12
    assert chatted.finish_reason and completed.finish_reason and completed.text
    assert usual.stats().tokens == 24


@pytest.mark.parametrize("tokens_per_chunk", [1, 3])
@pytest.mark.parametrize("usage", ["own chunk", "last chunk", "none"])
async def test_every_form_of_stream_gives_the_same_text(
    client: Client, usual: MockServer, usage: str, tokens_per_chunk: int
) -> None:
    usual.behave(
        tokens=7, usage=usage, tokens_per_chunk=tokens_per_chunk, comments=True, crlf=True, split_utf8=True, echo=True
    )
    text = "Grüezi aus Zürich, 你好 und 🏔 dazu"
    answer = await client.ask(usual.endpoint(), [{"role": "user", "content": text}])
    assert answer.text.strip() == text
    assert answer.metrics.estimated is (usage == "none")


async def test_reasoning_is_kept_apart_and_comes_before(client: Client, usual: MockServer) -> None:
    usual.behave(reasoning_tokens=3, tokens=2, itl=0.01)
    answer = await client.ask(usual.endpoint(), USER)
    assert answer.reasoning and answer.text and answer.reasoning not in answer.text
    metrics = answer.metrics
    assert metrics.ttft is not None and metrics.ttfot is not None and metrics.ttft < metrics.ttfot


async def test_a_tool_is_called_where_one_is_offered(client: Client, usual: MockServer) -> None:
    tool = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    answer = await client.ask(usual.endpoint(), USER, tools=[tool])
    assert [call.name for call in answer.tool_calls] == ["now"] and answer.finish_reason == "tool_calls"


async def test_logprobs_come_one_a_token(client: Client, usual: MockServer) -> None:
    usual.behave(tokens=4)
    answer = await client.ask(usual.endpoint(), USER, logprobs=True, top_logprobs=2)
    assert "".join(each.token for each in answer.logprobs) == answer.text
    assert all(each.logprob is not None and each.logprob <= 0 and each.top for each in answer.logprobs)


@pytest.mark.parametrize(
    ("timeouts", "behaviour", "clock"),
    [
        (Timeouts(first_token=0.2), {"hang_before": True}, "first_token"),
        (Timeouts(first_token=0.2), {"hang_before": True, "comment_every": 0.02}, "first_token"),
        (Timeouts(first_token=0.2), {"header_delay": 30.0}, "first_token"),
        (Timeouts(between_tokens=0.2), {"hang_after": 2}, "between_tokens"),
        (Timeouts(between_tokens=0.2), {"hang_after": 2, "comment_every": 0.02}, "between_tokens"),
        (Timeouts(total=0.3), {"tokens": 10_000, "itl": 0.02}, "total"),
    ],
)
async def test_a_stall_is_noticed_by_the_right_clock_and_the_server_is_left(
    usual: MockServer, timeouts: Timeouts, behaviour: dict[str, object], clock: str
) -> None:
    usual.behave(**behaviour)
    async with Client(timeouts) as client:
        with pytest.raises(TimedOut) as caught:
            await client.ask(usual.endpoint(), USER)
    assert caught.value.clock == clock
    await until(lambda: usual.stats().cancelled == 1 and usual.stats().in_flight == 0)


async def test_slow_but_steady_is_no_stall(usual: MockServer) -> None:
    usual.behave(tokens=8, itl=0.05)
    async with Client(Timeouts(first_token=20, between_tokens=10, total=60)) as client:
        assert (await client.ask(usual.endpoint(), USER)).metrics.output_tokens == 8


@pytest.mark.parametrize("behaviour", [{"hang_before": True}, {"hang_after": 2}, {"tokens": 10_000, "itl": 0.01}])
async def test_cancelling_is_seen_by_the_server(
    client: Client, usual: MockServer, behaviour: dict[str, object]
) -> None:
    usual.behave(**behaviour)
    task = asyncio.create_task(client.ask(usual.endpoint(), USER))
    await until(lambda: usual.stats().in_flight == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: usual.stats().cancelled == 1 and usual.stats().in_flight == 0)


async def test_leaving_the_loop_is_seen_by_the_server(client: Client, usual: MockServer) -> None:
    usual.behave(hang_after=1)
    async with client.stream(usual.endpoint(), USER) as answering:
        async for _ in answering:
            break
    await until(lambda: usual.stats().cancelled == 1)


async def test_one_connection_serves_one_answer_after_another(client: Client, usual: MockServer) -> None:
    for _ in range(5):
        await client.ask(usual.endpoint(), USER)
    assert usual.stats().connections <= 2  # that, and the one that asks for the counts
    connects = [(await client.ask(usual.endpoint(), USER)).metrics.connect for _ in range(2)]
    assert all(seconds is not None for seconds in connects)


@pytest.mark.parametrize("cut", ["fin", "reset"])
async def test_a_cut_answer_keeps_what_came_and_is_not_asked_for_again(
    client: Client, usual: MockServer, cut: str
) -> None:
    usual.behave(cut_after=3, cut=cut)
    with pytest.raises(StreamCut):
        async with client.stream(usual.endpoint(), USER) as answering:
            async for _ in answering:
                pass
    assert len(answering.answer.text.split()) == 3
    assert usual.stats().requests == 1


@pytest.mark.parametrize("behaviour", [{"bad_json_after": 2}, {"error_after": 2}])
async def test_an_answer_that_ends_in_an_error_keeps_what_came(
    client: Client, usual: MockServer, behaviour: dict[str, object]
) -> None:
    usual.behave(**behaviour)
    with pytest.raises(ServerFailed):
        async with client.stream(usual.endpoint(), USER) as answering:
            async for _ in answering:
                pass
    assert len(answering.answer.text.split()) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_server_that_says_when_is_asked_again_then(client: Client, usual: MockServer, form: str) -> None:
    usual.behave(error_rate=1.0, error_status=429, retry_after=1.0, retry_after_form=form)
    task = asyncio.create_task(client.ask(usual.endpoint(), USER))
    await until(lambda: usual.stats().refused == 1)
    usual.behave(error_rate=0.0)
    assert (await task).metrics.attempts == 2


async def test_a_long_wait_is_told_instead_of_waited_for(client: Client, usual: MockServer) -> None:
    usual.behave(error_rate=1.0, error_status=429, retry_after=600.0)
    with pytest.raises(RateLimited) as caught:
        await client.ask(usual.endpoint(), USER)
    assert caught.value.retry_after == 600 and usual.stats().requests == 1


async def test_a_used_up_budget_is_told_and_not_asked_again(client: Client, usual: MockServer) -> None:
    body = '{"error": {"message": "Budget has been exceeded! Max budget: 1.0", "type": "budget_exceeded"}}'
    usual.behave(error_rate=1.0, error_status=429, error_body=body)
    with pytest.raises(BudgetExceeded, match="used up"):
        await client.ask(usual.endpoint(), USER)
    assert usual.stats().requests == 1


async def test_an_unknown_model_lists_those_there_are(client: Client, usual: MockServer) -> None:
    with pytest.raises(ModelNotFound) as caught:
        await client.ask(usual.endpoint(model="none"), USER)
    assert caught.value.available == ("mock", "other") and "mock, other" in str(caught.value)


async def test_a_key_that_is_missing_or_wrong_is_told(client: Client) -> None:
    with start_mock(Behaviour(key="RIGHT-KEY"), process=False) as guarded:
        assert (await client.ask(guarded.endpoint(), USER)).text
        with pytest.raises(Unauthorized, match="key_env, key_file"):
            await client.ask(Endpoint(name="e", base_url=guarded.url, model="mock"), USER)


async def test_many_at_once_are_all_sent_at_once(client: Client, usual: MockServer) -> None:
    usual.behave(tokens=2, ttft=0.2)
    answers = await asyncio.gather(*(client.ask(usual.endpoint(), USER) for _ in range(150)))
    assert all(answer.text for answer in answers)
    assert usual.stats().peak_in_flight > 100  # more than the hundred at which usual clients stop


async def test_health_tells_who_answers_and_costs_no_token(client: Client, usual: MockServer) -> None:
    well = await client.health(usual.endpoint())
    assert well.well and well.models == ("mock", "other") and well.seconds > 0
    other = await client.health(usual.endpoint(model="none"))
    assert other.reachable and not other.well and "none" in other.problem
    gone = await client.health(Endpoint(name="e", base_url="http://127.0.0.1:9", model="m"))
    assert not gone.reachable and gone.problem and gone.models == ()
    missing = await client.health(usual.endpoint(key_env="OBERALP_NO_SUCH_KEY"))
    assert missing.reachable and "OBERALP_NO_SUCH_KEY" in missing.problem
    assert usual.stats().tokens == 0
