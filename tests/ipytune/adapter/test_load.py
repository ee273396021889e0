"""Loading into a running vLLM: what is asked, and each refusal as something that a person can act on.

The server here is a small fake: routes, statuses and messages are those of vLLM's source, the rest is not there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ipytune.adapter.load import (
    AdapterNotSeen,
    LoadingNotAllowed,
    NameTaken,
    RankTooHigh,
    WrongBase,
    default_name,
    load,
    plain_name,
    served_rank,
    unload,
)
from ipytune.adapter.source import open_adapter
from ipytune.endpoints import BadRequest, Endpoint, ModelNotFound, ServerFailed, Unauthorized, Unreachable

KEY = "sk-very-secret"


class FakeVllm:
    """The part of vLLM that knows adapters. `max_rank`, `allowed`, `enabled` are its flags; `sees` its file system."""

    def __init__(self) -> None:
        self.base = "org/tiny-llama"
        self.adapters: dict[str, str] = {}
        self.max_rank, self.allowed, self.enabled, self.sees = 16, True, True, True
        self.says: tuple[int, str] | None = None
        self.bodies: list[dict[str, Any]] = []
        self.key: str | None = None
        self.url = ""

    def models(self) -> dict[str, Any]:
        cards: list[dict[str, Any]] = [{"id": self.base, "object": "model", "root": self.base, "parent": None}]
        cards += [{"id": name, "root": path, "parent": self.base} for name, path in self.adapters.items()]
        return {"object": "list", "data": cards}

    def load(self, body: dict[str, Any]) -> tuple[int, str | dict[str, Any]]:
        name, path = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters and not body.get("load_inplace"):
            return _error(
                400,
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, "
                "set 'load_inplace' to True.",
            )
        if not self.enabled:
            return _error(400, "Call to add_lora method failed: LoRA is not enabled.")
        if not self.sees or not path.is_dir():
            return _error(
                404, f"Call to add_lora method failed: Loading lora {name} failed: No adapter found for {path}"
            )
        rank = json.loads((path / "adapter_config.json").read_text())["r"]
        if rank > self.max_rank:
            return _error(
                400, f"Call to add_lora method failed: LoRA rank {rank} is greater than max_lora_rank {self.max_rank}."
            )
        self.adapters[name] = str(path)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body: dict[str, Any]) -> tuple[int, str | dict[str, Any]]:
        if body["lora_name"] not in self.adapters:
            return _error(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        del self.adapters[body["lora_name"]]
        return 200, "Success"

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, str | dict[str, Any]]:
        if path == "/v1/models":
            return 200, self.models()
        if self.says is not None:
            return _error(*self.says)
        routes = {"/v1/load_lora_adapter": self.load, "/v1/unload_lora_adapter": self.unload} if self.allowed else {}
        if path not in routes:
            return 404, {"detail": "Not Found"}
        self.bodies.append(body)
        return routes[path](body)


def _error(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}


@pytest.fixture
def server() -> Iterator[FakeVllm]:
    fake = FakeVllm()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            given = self.headers.get("authorization")
            if fake.key is not None and given != f"Bearer {fake.key}":
                status, said = _error(401, f"Unauthorized: {given}")
            else:
                status, said = fake.answer(self.command, self.path, json.loads(raw) if raw else {})  # type: ignore[assignment]
            content = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "text/plain" if isinstance(said, str) else "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *arguments: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
    try:
        yield fake
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join(5)


@pytest.fixture
def base(server: FakeVllm) -> Endpoint:
    return Endpoint(name="base", base_url=server.url, model=server.base)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "first run")


def write_adapter(folder: Path, **settings: Any) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 16, "base_model_name_or_path": "/models/tiny-llama", **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_an_adapter_becomes_an_endpoint_and_goes_again(server: FakeVllm, base: Endpoint, adapter: Path) -> None:
    tuned = load(base, adapter)
    assert tuned == base.model_copy(update={"name": "first-run", "model": "first-run"})
    assert server.bodies == [{"lora_name": "first-run", "lora_path": str(adapter)}]
    unload(tuned)
    assert not server.adapters
    with pytest.raises(ModelNotFound, match="has no adapter “first-run”"):
        unload(tuned)


def test_a_name_is_taken_once(server: FakeVllm, base: Endpoint, adapter: Path) -> None:
    load(base, adapter, "mine")
    with pytest.raises(NameTaken, match="replace=True"):
        load(base, adapter, "mine")
    load(base, adapter, "mine", replace=True)
    assert server.bodies[-1]["load_inplace"] is True
    server.base = "mine-too"
    with pytest.raises(NameTaken, match="It is a base model"):
        load(base.model_copy(update={"model": "mine-too"}), adapter, "mine-too", replace=True, any_base=True)


def test_the_rank_that_would_serve_is_named(base: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(RankTooHigh, match="rank is 24, .* at most 16.*--max-lora-rank 32"):
        load(base, write_adapter(tmp_path / "a", r=24))
    assert [served_rank(rank) for rank in (1, 8, 9, 33, 512, 1024)] == [8, 8, 16, 64, 512, 1024]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"allowed": False}, LoadingNotAllowed, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        ({"enabled": False}, LoadingNotAllowed, "--enable-lora --max-lora-rank 16"),
        ({"sees": False}, AdapterNotSeen, "server_path"),
        (
            {"says": (400, "While loading /a, expected target modules in {'q_proj'} but received ['c_attn']")},
            WrongBase,
            "does not fit",
        ),
        ({"says": (500, "the GPU fell off")}, ServerFailed, "the GPU fell off"),
        ({"key": KEY}, Unauthorized, "key"),
    ],
)
def test_each_refusal_has_its_remedy(
    server: FakeVllm, base: Endpoint, adapter: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    vars(server).update(change)
    with pytest.raises(error, match=words):
        load(base, adapter)


def test_another_base_is_noticed_before_it_answers_wrongly(server: FakeVllm, base: Endpoint, tmp_path: Path) -> None:
    other = write_adapter(tmp_path / "other", base_model_name_or_path="org/another-model")
    with pytest.raises(WrongBase, match="belongs to org/another-model, and the server runs org/tiny-llama.*any_base"):
        load(base, other)
    assert not server.bodies
    tuned = load(base, other, any_base=True)
    with pytest.raises(WrongBase, match="is an adapter itself"):
        load(tuned, other, "again", any_base=True)
    with pytest.raises(ModelNotFound, match="does not serve the model “absent”"):
        load(base.model_copy(update={"model": "absent"}), other)


def test_what_vllm_cannot_serve_is_not_asked_for(server: FakeVllm, base: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no DoRA"):
        load(base, write_adapter(tmp_path / "dora", use_dora=True))
    with pytest.raises(BadRequest, match="no name for a model"):
        load(base, write_adapter(tmp_path / "plain"), "../etc")
    assert not server.bodies


def test_the_key_is_sent_and_never_said(
    server: FakeVllm, base: Endpoint, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    endpoint = base.model_copy(update={"key_env": "MY_KEY"})
    server.key = KEY
    load(endpoint, adapter)
    server.key = "another"  # its refusal repeats what it was sent
    with pytest.raises(Unauthorized) as refused:
        load(endpoint, adapter, "second")
    assert KEY not in str(refused.value) and "•••" in str(refused.value)


def test_nobody_there(adapter: Path) -> None:
    with pytest.raises(Unreachable, match="Check that the server runs"):
        load(Endpoint(name="e", base_url="http://127.0.0.1:9/v1", model="m"), adapter)


def test_names_of_models_and_adapters(adapter: Path) -> None:
    cached = "/hub/models--Qwen--Qwen3-0.6B/snapshots/0a1b2c"
    assert plain_name("Qwen/Qwen3-0.6B") == plain_name(cached) == plain_name("/x/qwen3-0.6B/") == "qwen3-0.6b"
    assert default_name(open_adapter(adapter)) == "first-run"
