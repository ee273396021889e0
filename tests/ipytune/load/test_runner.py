"""One process's share of a step, against a mock server over real sockets."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ipytune.endpoints import Endpoint, Timeouts
from ipytune.load.connection import ConnectFailed
from ipytune.load.plan import Load, Plan
from ipytune.load.records import Kind
from ipytune.load.runner import Measured, Runner
from ipytune.mock import Behaviour, MockServer, start_mock
from tests.ipytune.endpoints.certificates import authority, certified

CLOSED = Load("closed", 2)


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with start_mock(Behaviour(tokens=8), process=False) as running:
        yield running


def _plan(**fields: object) -> Plan:
    return Plan.model_validate({"concurrency": (2,), "requests": 6, "warmup": 2, "output_tokens": 8, **fields})


async def _measured(endpoint: Endpoint, plan: Plan, load: Load = CLOSED, **shares: int) -> Measured:
    runner = Runner(endpoint, plan, load, mark="t", **shares)
    await runner.prepare()
    return await runner.run(time.monotonic_ns())


def _errors(measured: Measured) -> set[str | None]:
    return {record.error for record in measured.records}


async def test_a_closed_loop_keeps_so_many_at_once_and_measures_after_the_warm_up(mock: MockServer) -> None:
    mock.behave(ttft=0.01, itl=0.001)
    measured = await _measured(mock.endpoint(), _plan())
    assert _errors(measured) == {None}
    assert len(measured.records) == 8 and sum(record.measured for record in measured.records) == 6
    assert measured.ended == "sent" and measured.begin
    stats = mock.stats()
    assert stats.requests == 8 and stats.peak_in_flight == 2
    while mock.stats().connections > 1:  # the one that asks; those of the run are closed
        await asyncio.sleep(0.01)


async def test_records_hold_what_the_server_did(mock: MockServer) -> None:
    mock.behave(ttft=0.02, itl=0.002, reasoning_tokens=3)
    measured = await _measured(mock.endpoint(), _plan())
    truth = {one.id: one for one in mock.truth()}
    for record in measured.records:
        true = truth[record.response_id]
        assert record.tokens == true.tokens == len(record.times)
        assert record.prompt_tokens == true.prompt_tokens
        assert record.times[0] * 1e-9 >= true.writes[0]
        assert record.sent * 1e-9 <= true.arrival
        assert record.ttfot is not None and true.first_output is not None
        assert record.first_output * 1e-9 >= true.first_output


async def test_prompts_do_not_begin_alike(mock: MockServer) -> None:
    await _measured(mock.endpoint(), _plan())
    first_words = {one.body["messages"][0]["content"].split()[0] for one in mock.requests()}
    assert len(first_words) == 8


async def test_an_open_loop_sends_when_requests_are_due_though_none_is_answered(mock: MockServer) -> None:
    mock.behave(hang_before=True)
    plan = _plan(concurrency=(), rates=(100,), arrivals="constant", requests=20, warmup=0, drain=0.2)
    measured = await _measured(mock.endpoint(), plan, Load("open", 100))
    assert len(measured.records) == 20
    dues = sorted(record.due for record in measured.records)
    assert {later - earlier for earlier, later in zip(dues, dues[1:], strict=False)} == {10_000_000}
    assert _errors(measured) == {Kind.UNFINISHED}
    assert mock.stats().peak_in_flight == 20


async def test_shares_of_an_open_loop_are_the_whole(mock: MockServer) -> None:
    plan = _plan(concurrency=(), rates=(200,), requests=15, warmup=3)
    load = Load("open", 200)
    parts = await asyncio.gather(*(_measured(mock.endpoint(), plan, load, share=share, of=3) for share in range(3)))
    assert sorted(record.index for part in parts for record in part.records) == list(range(18))
    assert sum(record.measured for part in parts for record in part.records) == 15


async def test_a_duration_ends_the_sending_and_answers_under_way_are_awaited(mock: MockServer) -> None:
    mock.behave(ttft=0.05, itl=0.01)
    measured = await _measured(mock.endpoint(), _plan(requests=None, duration=0.3))
    assert _errors(measured) == {None}
    assert measured.end - measured.begin == 300_000_000
    assert max(record.sent for record in measured.records) <= measured.end + 5_000_000
    assert max(record.ended for record in measured.records) > measured.end


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ({"error_rate": 1.0, "error_status": 429}, "HTTP 429"),
        ({"error_rate": 1.0, "error_status": 500}, "HTTP 500"),
        ({"cut_after": 3}, Kind.CUT),
        ({"cut_after": 3, "cut": "fin"}, Kind.CUT),
        ({"bad_json_after": 2}, Kind.UNREADABLE),
        ({"error_after": 2}, Kind.IN_STREAM),
        ({"hang_before": True}, Kind.FIRST_TOKEN),
        ({"hang_after": 3}, Kind.BETWEEN_TOKENS),
        ({"hang_after": 3, "comment_every": 0.02}, Kind.BETWEEN_TOKENS),
    ],
)
async def test_each_failure_is_recorded_by_its_kind_and_nothing_is_sent_twice(
    mock: MockServer, behaviour: dict[str, object], kind: str
) -> None:
    mock.behave(**behaviour)
    hangs = kind in (Kind.FIRST_TOKEN, Kind.BETWEEN_TOKENS)
    timeouts = {"first_token": 0.2, "between_tokens": 0.2} if hangs else {}
    measured = await _measured(mock.endpoint(), _plan(requests=3, warmup=0, timeouts=timeouts))
    assert _errors(measured) == {kind}
    assert all(record.message for record in measured.records)
    assert mock.stats().requests == len(measured.records)


async def test_the_total_clock_ends_an_answer_that_never_does(mock: MockServer) -> None:
    mock.behave(itl=0.02)
    plan = _plan(requests=2, warmup=0, output_tokens=5000, timeouts={"total": 0.3})
    measured = await _measured(mock.endpoint(), plan)
    assert _errors(measured) == {Kind.TOTAL}


async def test_a_step_of_nothing_but_errors_ends_early(mock: MockServer) -> None:
    mock.behave(error_rate=1.0)
    plan = _plan(concurrency=(30,), requests=None, duration=60, warmup=0)
    measured = await _measured(mock.endpoint(), plan, Load("closed", 30))
    assert measured.ended == "hopeless"


async def test_stop_keeps_what_was_measured_and_frees_the_server(mock: MockServer) -> None:
    mock.behave(itl=0.02)
    runner = Runner(mock.endpoint(), _plan(requests=None, duration=60, output_tokens=5000), CLOSED, mark="t")
    await runner.prepare()
    running = asyncio.create_task(runner.run(time.monotonic_ns()))
    while runner.chunks() < 4:
        await asyncio.sleep(0.01)
    runner.stop()
    measured = await running
    assert measured.ended == "stopped" and _errors(measured) == {Kind.UNFINISHED}
    assert all(record.times for record in measured.records)
    while mock.stats().in_flight:
        await asyncio.sleep(0.01)
    assert mock.stats().cancelled == 2
    assert gc.isenabled()


async def test_a_stop_before_the_start_sends_nothing(mock: MockServer) -> None:
    runner = Runner(mock.endpoint(), _plan(), CLOSED, mark="t")
    await runner.prepare()
    runner.stop()
    assert (await runner.run(time.monotonic_ns())).records == []
    assert mock.stats().requests == 0


async def test_more_in_flight_than_allowed_ends_the_step(mock: MockServer) -> None:
    mock.behave(hang_before=True)
    plan = _plan(concurrency=(), rates=(500,), requests=None, duration=60, max_in_flight=10)
    measured = await _measured(mock.endpoint(), plan, Load("open", 500))
    assert measured.ended == "in-flight limit" and len(measured.records) == 10


async def test_no_server_is_told_before_anything_is_measured() -> None:
    endpoint = Endpoint(name="e", base_url="http://127.0.0.1:9", model="m")
    with pytest.raises(ConnectFailed, match="."):
        await Runner(endpoint, _plan(), CLOSED).prepare()


async def test_a_server_that_dies_in_mid_run_gives_errors_not_an_exception() -> None:
    with start_mock(Behaviour(itl=0.01), process=False) as mock:
        runner = Runner(mock.endpoint(), _plan(requests=None, duration=1, output_tokens=5000), CLOSED, mark="t")
        await runner.prepare()
        running = asyncio.create_task(runner.run(time.monotonic_ns()))
        while runner.chunks() < 4:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(mock.stop)
        measured = await running
    assert Kind.CUT in _errors(measured) and Kind.REFUSED in _errors(measured)


async def test_the_key_goes_out_and_is_in_no_record() -> None:
    with start_mock(Behaviour(key="marker-key-0815"), process=False) as mock:
        measured = await _measured(mock.endpoint(), _plan())
        assert _errors(measured) == {None}
        assert "marker-key-0815" not in repr(measured)


@asynccontextmanager
async def _behind_tls(mock: MockServer, certificate: Path) -> AsyncIterator[Endpoint]:
    """The mock's endpoint as one that is reached over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", mock.port)
        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer), return_exceptions=True)

    async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        yield Endpoint(name="e", base_url=f"https://127.0.0.1:{port}/v1", model="mock")


async def test_tls_is_measured_alike_where_the_certificate_is_trusted(
    mock: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = certified(tmp_path, authority(tmp_path))
    async with _behind_tls(mock, certificate) as endpoint:
        with pytest.raises(ConnectFailed, match="certificate is not trusted"):
            await Runner(endpoint, _plan(), CLOSED).prepare()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        measured = await _measured(endpoint, _plan())
    assert _errors(measured) == {None} and len(measured.records) == 8


async def test_a_long_answer_is_read_while_it_comes(mock: MockServer) -> None:
    mock.behave(itl=0.0002)
    measured = await _measured(mock.endpoint(), _plan(requests=2, warmup=0, output_tokens=3000))
    assert [record.tokens for record in measured.records] == [3000, 3000] == [len(r.times) for r in measured.records]
    assert all(record.times.tolist() == sorted(record.times) for record in measured.records)


async def test_completions_are_measured_alike(mock: MockServer) -> None:
    measured = await _measured(mock.endpoint(), _plan(api="completions"))
    assert _errors(measured) == {None}
    assert {one.path for one in mock.requests()} == {"/v1/completions"}
    assert {record.tokens for record in measured.records} == {8}


async def test_time_outs_are_the_clients_own() -> None:
    assert _plan().timeouts == Timeouts()
