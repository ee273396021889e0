"""A key is sent to its server and shown nowhere: errors, tracebacks with local variables, logs, reprs, records."""

from __future__ import annotations

import io
import json
import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console
from rich.traceback import Traceback
from typer.testing import CliRunner

from ipytune.endpoints import BadRequest, Client, Endpoint, EndpointError, KeyMissing, Timeouts
from ipytune.endpoints.background import chat
from ipytune.endpoints.catalogue import register
from ipytune.endpoints.commands import app
from ipytune.endpoints.exchange import Exchange
from ipytune.endpoints.keys import blot
from ipytune.mock import Behaviour, start_mock
from tests.ipytune.endpoints.mock_server import CUT, DONE, Mock, Request, Step, delta, event, reply, stream

MARKER = "MARKER/key+0123456789=="  # with letters that JSON and URLs may spell otherwise
USER = [{"role": "user", "content": "hi"}]

Script = Callable[[str], Sequence[Step]]


def refused(status: int) -> Script:
    return lambda key: reply(status, {"error": {"message": f"{key} may not, {key}"}})


def head(key: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Echo: {key}\r\n\r\n".encode()


SCRIPTS: dict[str, Script] = {
    **{str(status): refused(status) for status in (400, 401, 402, 403, 404, 418, 429, 500, 503)},
    "at the cut": lambda key: reply(401, {"error": {"message": "x" * 390 + key}}),
    "plain text": lambda key: reply(401, f"refused: {key}".encode()),
    "escaped": lambda key: reply(401, f'{{"error": "{key.replace("/", chr(92) + "/")}"'.encode()),
    "redirect": lambda key: reply(307, {}, f"Location: https://h/{key}?key={key}\r\n"),
    "no stream": lambda key: reply(200, {"echo": key}),
    "no json": lambda key: stream(f"data: {key} {key}\n\n".encode()),
    "no json later": lambda key: stream(delta("a"), f"data: {'x' * 190}{key}\n\n".encode()),
    "error in the stream": lambda key: stream(delta("a"), event({"error": {"message": f"{key} expired"}})),
    "half an event": lambda key: stream(delta("a"), f'data: {{"error": "{key}'.encode()),
    "cut": lambda key: stream(delta("a"), f": {key}\n".encode(), CUT),
    "no http": lambda key: [f"{key} {key}\r\n\r\n".encode()],
    "no header": lambda key: [f"HTTP/1.1 200 OK\r\n{key}\r\n\r\n".encode()],
    "no chunks": lambda key: [f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n".encode()],
}


@pytest.fixture
def named(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    monkeypatch.setenv("MARKED_KEY", MARKER)
    return endpoint.model_copy(update={"key_env": "MARKED_KEY"})


def shown(error: BaseException) -> str:
    """Everything that any of the usual tools would show of it, but for the test's own frame."""
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
    out = io.StringIO()
    unlimited: dict[str, Any] = {"locals_max_length": None, "locals_max_string": None, "locals_hide_sunder": False}
    rich = Traceback.from_exception(type(error), error, trace, show_locals=True, locals_hide_dunder=False, **unlimited)
    Console(file=out, width=1000).print(rich)
    lines = traceback.TracebackException(type(error), error, trace, capture_locals=True).format()
    return "".join([*lines, out.getvalue(), str(error), repr(error), repr(error.args), repr(vars(error))])


def spellings() -> list[str]:
    return [MARKER, json.dumps(MARKER)[1:-1], "MARKER%2Fkey", "MARKER\\/key", "MARKER/k"]


def assert_hidden(words: str) -> None:
    for spelling in spellings():
        assert spelling not in words


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_server_that_repeats_the_key_does_not_bring_it_into_errors_tracebacks_or_logs(
    name: str, named: Endpoint, mock: Mock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    received: list[bool] = []

    def answer(request: Request) -> Sequence[Step]:
        received.append(request.headers["authorization"] == f"Bearer {MARKER}")
        return SCRIPTS[name](request.headers["authorization"].removeprefix("Bearer "))

    mock.answer = answer
    async with Client(Timeouts(total=20), retries=0) as client:
        with pytest.raises(EndpointError) as caught:
            await client.ask(named, USER)
        assert_hidden(repr(client))
    assert received == [True]
    assert_hidden(shown(caught.value))
    assert_hidden(caplog.text)
    assert_hidden(repr(named) + named.model_dump_json())


async def test_the_key_is_in_no_log_of_a_usual_answer(
    named: Endpoint, mock: Mock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Client() as client:
        answer = await client.ask(named, USER)
        assert (await client.health(named)).well
    assert mock.requests[0].headers["authorization"] == f"Bearer {MARKER}"
    assert_hidden(caplog.text)
    assert_hidden(repr(answer))


def test_in_the_background_too(named: Endpoint, mock: Mock) -> None:
    mock.answer = lambda request: refused(401)(request.headers["authorization"])
    with pytest.raises(EndpointError) as caught:
        chat(named, "hi")
    assert_hidden(shown(caught.value))
    exchange = Exchange(named, USER)
    with pytest.raises(EndpointError):
        exchange.wait(20)
    assert_hidden(repr(exchange.view()))


def test_what_nobody_foresaw_is_blotted_too(named: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"with {MARKER} inside")

    monkeypatch.setattr("ipytune.endpoints.background.shared_client", broken)
    exchange = Exchange(named, USER)
    with pytest.raises(EndpointError) as caught:
        exchange.wait(20)
    assert_hidden(str(caught.value))


@pytest.mark.parametrize("odd", [f"{MARKER} and more", f"{MARKER}\nX-Other: 1", f"{MARKER}é"])
async def test_what_no_header_can_hold_is_refused_before_it_is_sent_and_not_repeated(
    odd: str, endpoint: Endpoint, mock: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKED_KEY", odd)
    named = endpoint.model_copy(update={"key_env": "MARKED_KEY"})
    async with Client() as client:
        with pytest.raises(KeyMissing) as caught:
            await client.ask(named, USER)
        health = await client.health(named)
    assert mock.requests == [] and not health.well
    assert_hidden(shown(caught.value))
    assert_hidden(health.problem)


@pytest.mark.parametrize("field", ["key", "api_key", "token", "key_env", "base_url"])
def test_a_key_in_the_wrong_field_is_not_repeated(field: str) -> None:
    from ipytune.endpoints.records import described

    fields = {"name": "e", "base_url": "http://h", "model": "m", field: f"http://a:{MARKER}@h"}
    with pytest.raises(BadRequest) as caught:
        described(**fields)
    assert_hidden(str(caught.value))


async def test_a_mock_that_repeats_the_key_of_a_file(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    behaviour = Behaviour(key="MARKER/key", error_rate=1.0, error_status=401, repeat_key=True)
    with start_mock(behaviour, process=False) as server:
        endpoint = server.endpoint()
        async with Client() as client:
            with pytest.raises(EndpointError) as caught:
                await client.ask(endpoint, USER)
    assert "•••" in str(caught.value)
    assert "MARKER/key" not in str(caught.value) + caplog.text


def test_the_commands_show_it_nowhere(
    endpoint: Endpoint, mock: Mock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MARKED_KEY", MARKER)
    monkeypatch.setenv("IPYTUNE_ENDPOINTS_FILE", str(tmp_path / "endpoints.yaml"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("IPYTUNE_ENDPOINTS", raising=False)
    mock.answer = lambda request: refused(401)(request.headers["authorization"].removeprefix("Bearer "))
    shown_words = ""
    for words in (
        ["endpoints", "add", "mine", mock.url, "--model", "m", "--key-env", "MARKED_KEY"],
        ["endpoints", "list"],
        ["endpoints", "list", "--json"],
        ["endpoints", "check"],
        ["endpoints", "check", "--json"],
        ["chat", "hi", "--endpoint", "mine"],
        ["chat", "hi", "--endpoint", "mine", "--json"],
    ):
        shown_words += CliRunner().invoke(app, words).output
    assert mock.requests and mock.requests[0].headers["authorization"] == f"Bearer {MARKER}"
    assert "•••" in shown_words and "$MARKED_KEY" in shown_words
    with register(endpoint.model_copy(update={"key_env": "MARKED_KEY"})):
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) == 2
        assert_hidden(shown_words + "".join(path.read_text() for path in files))


def test_blotting_knows_how_json_and_urls_spell() -> None:
    key = SecretStr('a"b/c')
    words = blot('a"b/c a\\"b/c a%22b%2Fc', key)
    assert words == "••• ••• •••"
    assert blot("nothing", None) == "nothing"


def test_the_done_mark_is_not_the_key() -> None:
    assert DONE.decode() not in MARKER  # the scripts above would end otherwise
