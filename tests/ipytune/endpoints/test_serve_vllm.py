"""A real vLLM with the bundled model: adapters in and out while it runs, its refusals, its end. Some minutes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ipytune import models as shipped
from ipytune.adapter.load import RankTooHigh
from ipytune.endpoints import EndpointError, Unauthorized, chat, models
from ipytune.endpoints.serve import ServeFailed, Server, load_adapter, serve
from tests.browser.lab import until
from tests.ipytune.endpoints.engines.test_keeper import exists
from tests.ipytune.endpoints.test_serve_process import write_adapter

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800), pytest.mark.usefixtures("vllm_python")]
QUESTION = "Write one line about the sea."


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of several ranks, r8, r32 and r64, and one with a whole layer."""
    folder = tmp_path_factory.mktemp("adapters")
    base = Path(shipped.resolve(shipped.SMOLLM2))
    for rank in (8, 32, 64):
        write_adapter(base, folder / f"r{rank}", r=rank, std=0.02)
    write_adapter(base, folder / "whole", std=0.02, modules_to_save=["lm_head"])
    return folder


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def server(adapters: Path, said: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        extra = ("--max-model-len", "1024")
        with serve(shipped.SMOLLM2, adapters / "r8", engine="vllm", extra=extra, progress=said.append) as running:
            yield running


def answer(endpoint: object) -> str:
    return chat(endpoint, QUESTION, max_tokens=16, temperature=0).text  # type: ignore[arg-type]


def test_it_says_what_it_does_and_both_models_answer(server: Server, said: list[str]) -> None:
    assert said[0].startswith("Starting smollm2-135m-instruct. vLLM") and said[-1].startswith("Ready: ")
    assert any(line.startswith(("Loading weights", "Weights loaded")) for line in said)
    assert models(server.base) == ("smollm2-135m-instruct", "r8")
    assert answer(server.base) != answer(server.tuned)


def test_an_adapter_is_loaded_while_it_runs_and_taken_away(server: Server, adapters: Path) -> None:
    before = answer(server.base)
    loaded = server.load_adapter(adapters / "r32")
    given = answer(loaded)
    assert given not in (before, answer(server.tuned)) and answer(server.base) == before
    server.unload_adapter("r32")
    with pytest.raises(EndpointError):
        answer(loaded)
    assert models(server.base) == ("smollm2-135m-instruct", "r8")


def test_too_great_a_rank_is_refused_by_us_and_understood_from_vllm(server: Server, adapters: Path) -> None:
    with pytest.raises(RankTooHigh, match="max_lora_rank=64"):
        server.load_adapter(adapters / "r64")
    with pytest.raises(RankTooHigh, match="--max-lora-rank 64"):
        load_adapter(server.base, adapters / "r64")
    with pytest.raises(ServeFailed, match="modules_to_save"):
        server.load_adapter(adapters / "whole")


def test_it_wants_its_key_and_shows_it_to_nobody(server: Server) -> None:
    key = server.base.read_key()
    assert key is not None
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert key.get_secret_value().encode() not in command.read_bytes()
        except OSError:
            pass  # ended meanwhile
    assert key.get_secret_value() not in server.log_tail(100_000)
    with pytest.raises(Unauthorized):
        chat(server.base.model_copy(update={"key_file": None}), QUESTION)
    root = server.base.base_url.removesuffix("/v1")
    assert httpx.get(f"{root}/health", trust_env=False).status_code == 200
    for path in ("metrics", "version"):
        assert httpx.get(f"{root}/{path}", trust_env=False).status_code == 401
    for path in ("invocations", "tokenize", "v1/load_lora_adapter"):
        assert httpx.post(f"{root}/{path}", json={"prompt": "x"}, trust_env=False).status_code == 401


def test_a_port_that_is_taken_is_understood(server: Server) -> None:
    port = int(server.base.base_url.rsplit(":", 1)[1].removesuffix("/v1"))
    with pytest.raises(ServeFailed, match="port is taken"):
        serve(shipped.SMOLLM2, engine="vllm", port=port, extra=("--max-model-len", "1024"), progress=None)


def test_an_option_that_it_does_not_know_is_understood(adapters: Path) -> None:
    with pytest.raises(ServeFailed, match="does not know the option --no-such-option"):
        serve(shipped.SMOLLM2, engine="vllm", extra=("--no-such-option",), progress=None)


def test_an_unknown_architecture_is_understood(installed: None, tmp_path: Path) -> None:
    base = Path(shipped.resolve(shipped.SMOLLM2))
    strange = tmp_path / "strange"
    strange.mkdir()
    for file in base.iterdir():
        if file.is_file() and file.name != "config.json":
            (strange / file.name).symlink_to(file)
    config = json.loads((base / "config.json").read_text())
    config |= {"architectures": ["BrandNewForCausalLM"], "model_type": "brandnew"}
    (strange / "config.json").write_text(json.dumps(config))
    with pytest.raises(ServeFailed, match="architecture"):
        serve(strange, engine="vllm", progress=None)


def test_no_process_of_vllm_outlives_a_killed_caller(adapters: Path, tmp_path: Path) -> None:
    code = "from ipytune.endpoints.serve_command import app; app()"
    command = [sys.executable, "-c", code, "serve", "--engine", "vllm", "--extra=--max-model-len=1024"]
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    with (tmp_path / "told").open("w") as told:
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told, text=True, env=environment)
    assert parent.stdout is not None
    with parent.stdout:
        line = parent.stdout.readline()
        assert line, (tmp_path / "told").read_text()
        pids = descendants(parent.pid)
        assert len(pids) >= 3  # keeper, API server, engine core
        parent.send_signal(signal.SIGKILL)
        parent.wait(60)
    until(lambda: not any(map(exists, pids)), "the end of every process", 120)
    assert not Path(json.loads(line)["key_file"]).parent.exists()


def descendants(pid: int) -> list[int]:
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return [*children, *(below for child in children for below in descendants(child))]
