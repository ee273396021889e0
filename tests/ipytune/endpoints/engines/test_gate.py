"""Who is let in, and that what passes is passed on: alone, and behind a real Jupyter server with its proxy."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from ipytune.endpoints import Endpoint, Unauthorized, chat
from ipytune.endpoints.engines.gate import Door
from ipytune.endpoints.engines.sharing import Sharing, share
from tests.browser.lab import until

KEY = "sk-engine-marker"
TOKEN = "jupyter-token-marker"


async def test_the_engines_key_and_admitted_tokens_open_the_door() -> None:
    asked: list[str] = []

    async def ask(shown: str) -> bool:
        asked.append(shown)
        return shown == "Bearer good"

    now = [0.0]
    door = Door(KEY, ask, lambda: now[0])
    assert await door.admits(f"Bearer {KEY}") and not await door.admits("") and asked == []
    assert await door.admits("Bearer good") and not await door.admits("Bearer bad")
    assert await door.admits("Bearer good") and not await door.admits("Bearer bad")
    assert asked == ["Bearer good", "Bearer bad"]  # the second time it was remembered
    now[0] = 61.0
    assert await door.admits("Bearer good") and len(asked) == 3  # a token that was revoked does not stay good
    assert "good" not in repr(vars(door)["_known"])


class Engine(BaseHTTPRequestHandler):
    """Streams two words, as a chat completion, to who shows the engine's key; waits in between until told."""

    protocol_version = "HTTP/1.1"
    may_end = threading.Event()
    left = threading.Event()
    seen: list[dict[str, str]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        if self.headers["authorization"] != f"Bearer {KEY}":
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            self._word("one")
            while not self.may_end.wait(0.05):
                self.wfile.write(b": waiting\n\n")  # fails once the other side is gone
            self._word(" two", "stop")
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.left.set()
        self.close_connection = True
        assert body["stream"]

    def _word(self, text: str, finish: str | None = None) -> None:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
        self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[str]:
    Engine.may_end.clear()
    Engine.left.clear()
    Engine.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    Engine.may_end.set()
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Jupyter server with jupyter-server-proxy."""
    pytest.importorskip("jupyter_server_proxy")
    private = tmp_path_factory.mktemp("jupyter")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = {**os.environ, **{name: str(private / name) for name in names}, "JUPYTER_TOKEN": TOKEN}
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command += [f"--ServerApp.root_dir={private}", "--ServerApp.jpserver_extensions=jupyter_server_proxy=True"]
    with (private / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    record = private / "JUPYTER_RUNTIME_DIR" / f"jpserver-{process.pid}.json"

    def url() -> str:
        try:
            return str(json.loads(record.read_text())["url"])
        except (OSError, ValueError):
            assert process.poll() is None, (private / "log").read_text()[-2000:]
            return ""

    try:
        until(lambda: url() != "" and _answers(url()), "the Jupyter server", 120)
        yield url()
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}api", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def sharing(engine: str, jupyter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sharing]:
    directory = tmp_path / "server"
    directory.mkdir()
    (directory / "key").write_text(KEY)
    monkeypatch.setenv("JUPYTER_SERVER_URL", jupyter)
    sharing = share(directory, engine, print)
    assert sharing is not None
    yield sharing
    sharing.stop()
    assert not sharing.door.running
    for file in directory.iterdir():
        assert TOKEN not in file.read_text() and (file.name == "key" or KEY not in file.read_text())


@pytest.fixture
def endpoint(sharing: Sharing, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    monkeypatch.setenv("SESSION_TOKEN", TOKEN)
    return Endpoint(name="shared", base_url=sharing.url, model="m", key_env="SESSION_TOKEN")


def test_the_servers_token_is_enough_and_the_answer_streams(endpoint: Endpoint) -> None:
    pieces: list[str] = []

    def got(piece: object) -> None:
        pieces.append(piece.text)  # type: ignore[attr-defined]
        Engine.may_end.set()  # the first word has come through while the engine still waits to say the second

    answer = chat(endpoint, "words", on_piece=got)
    assert answer.text == "one two" and pieces[0] == "one"
    assert Engine.seen[0]["authorization"] == f"Bearer {KEY}"
    assert TOKEN not in json.dumps(Engine.seen)  # the engine, and its log, never see the token


def test_without_a_token_the_proxy_refuses_and_with_a_wrong_one_the_door_does(
    endpoint: Endpoint, sharing: Sharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_TOKEN", "wrong")
    direct = endpoint.model_copy(update={"base_url": f"http://127.0.0.1:{sharing.port}/v1"})
    with pytest.raises(Unauthorized):
        chat(direct, "words")
    with pytest.raises(Unauthorized):
        chat(direct.model_copy(update={"key_env": None}), "words")
    refused = httpx.post(f"{sharing.url}/chat/completions", json={}, trust_env=False)
    assert refused.status_code in (302, 403)  # by the Jupyter server
    assert Engine.seen == []


def test_a_token_that_was_let_in_opens_the_door_for_no_other(
    endpoint: Endpoint, sharing: Sharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    Engine.may_end.set()
    direct = endpoint.model_copy(update={"base_url": f"http://127.0.0.1:{sharing.port}/v1"})
    assert chat(direct, "words").text == "one two"  # the Jupyter server answered our question with a login cookie, too
    for wrong in ("wrong", "another"):
        monkeypatch.setenv("SESSION_TOKEN", wrong)
        with pytest.raises(Unauthorized):
            chat(direct, "words")


def test_the_engines_own_key_opens_the_door_to_who_is_on_this_machine(
    endpoint: Endpoint, sharing: Sharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    Engine.may_end.set()
    monkeypatch.setenv("ENGINE_KEY", KEY)
    update = {"base_url": f"http://127.0.0.1:{sharing.port}/v1", "key_env": "ENGINE_KEY"}
    assert chat(endpoint.model_copy(update=update), "words").text == "one two"


async def test_a_client_that_leaves_stops_the_engine(sharing: Sharing) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"model": "m", "messages": [], "stream": True}
    url = f"http://127.0.0.1:{sharing.port}/v1/chat/completions"
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as http,
        http.stream("POST", url, json=body, headers=headers) as answer,
    ):
        await anext(answer.aiter_lines())
    assert await asyncio.to_thread(Engine.left.wait, 30)


def test_an_engine_that_is_gone_is_said(sharing: Sharing, tmp_path: Path) -> None:
    gone = share(tmp_path / "server", "http://127.0.0.1:9", print)
    assert gone is not None
    try:
        url = f"http://127.0.0.1:{gone.port}/v1/models"
        answer = httpx.get(url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False)
        assert answer.status_code == 502 and "does not answer" in answer.text
    finally:
        gone.stop()
