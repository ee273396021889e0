"""serve() on a program that behaves as vLLM: how it is started, what is said, how it fails, what is left of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ipytune.adapter.load import RankTooHigh
from ipytune.endpoints import ModelNotFound, models
from ipytune.endpoints.catalogue import Catalogue
from ipytune.endpoints.serve import ServeFailed, serve
from tests.browser.lab import until
from tests.ipytune.endpoints.engines.test_keeper import exists


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "tiny"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"num_attention_heads": 4, "num_key_value_heads": 2}))
    (directory / "model.safetensors").write_bytes(b"1234")
    return directory


def adapter(base: Path, name: str, **settings: object) -> Path:
    folder = base.parent / name
    folder.mkdir()
    content = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": str(base), **settings}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_base_and_adapters_are_served_named_and_taken_away(fake_vllm: Path, base: Path) -> None:
    said: list[str] = []
    first, second = adapter(base, "first"), adapter(base, "second", r=32)
    with serve(base, first, adapters={"more": second}, gpus=0, progress=said.append) as server:
        assert server.engine == "vllm"
        assert [endpoint.name for endpoint in server.endpoints] == ["base", "tuned", "more"]
        assert models(server.base) == ("tiny", "first", "more") and server.tuned.model == "first"
        assert {"tiny", "first", "more"} <= set(Catalogue.load().names)
        server.unload_adapter("more")
        third = server.load_adapter(second, "third")
        assert models(server.base) == ("tiny", "first", "third") and third.model == "third"
        assert {"tiny", "first", "third"} <= set(Catalogue.load().names)
        with pytest.raises(ModelNotFound):
            server.unload_adapter("more")
        seen = json.loads(fake_vllm.read_text())
        assert exists(seen["pid"]) and exists(seen["worker"])
    assert said[0] == "Starting tiny. vLLM on the CPU: many requests at once."
    assert "Loading weights 100 %" in said and said[-1].startswith("Ready: http://127.0.0.1:")
    assert not exists(seen["pid"]) and not exists(seen["worker"])
    assert Catalogue.load().names == ()


def test_the_key_is_made_for_it_and_seen_by_nobody(
    fake_vllm: Path, base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serve(base, gpus=0) as server:
        key = server.base.read_key()
        assert key is not None and server.base.key_file is not None
        secret = key.get_secret_value()
        seen = json.loads(fake_vllm.read_text())
        assert "VLLM_API_KEY" in seen["environment"]
        # the command line of every process there is, as `ps` shows it
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert secret.encode() not in command.read_bytes()
            except OSError:
                pass  # ended meanwhile
        assert secret.encode() not in Path(f"/proc/{server.pid}/environ").read_bytes()
        for file in server.base.key_file.parent.iterdir():
            assert file == server.base.key_file or not file.is_file() or secret not in file.read_text()
        assert server.base.key_file.stat().st_mode & 0o077 == 0
        assert server.base.key_file.parent.stat().st_mode & 0o077 == 0
        records = list((Path(os.environ["JUPYTER_RUNTIME_DIR"])).rglob("*.json"))
        assert records and all(secret not in record.read_text() for record in records)
        told = capfd.readouterr()
        assert secret not in told.out + told.err + repr(server) + server.log_tail()


@pytest.mark.parametrize(
    ("failure", "why"),
    [("memory", "memory was not enough"), ("architecture", "architecture"), ("late death", "was killed")],
)
def test_a_start_that_fails_says_why_and_leaves_nothing(
    fake_vllm: Path, base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failure: str, why: str
) -> None:
    monkeypatch.setenv("FAKE_VLLM", failure)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ServeFailed, match=why) as failed:
        serve(base, gpus=0, progress=None)
    assert failed.value.remedy and not list(tmp_path.glob("ipytune-serve-*"))
    if fake_vllm.exists():
        assert not exists(json.loads(fake_vllm.read_text())["worker"])


def test_a_taken_port_is_said_and_a_free_one_is_looked_for_again(
    fake_vllm: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    monkeypatch.setattr("ipytune.endpoints.serve._free_port", lambda host: tries.append(host) or 1)
    monkeypatch.setenv("FAKE_VLLM", "port")
    with pytest.raises(ServeFailed, match="port is taken"):
        serve(base, gpus=0, progress=None)
    assert len(tries) == 3
    with pytest.raises(ServeFailed, match="port is taken"):
        serve(base, gpus=0, port=1, progress=None)
    assert len(tries) == 3  # a port that was asked for is not exchanged


def test_a_port_where_another_server_answers_is_said_before_anything_starts(fake_vllm: Path, base: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ServeFailed, match="port is taken"):
        serve(base, gpus=0, port=other.getsockname()[1], progress=None)
    assert not fake_vllm.exists()


def test_what_vllm_does_not_take_goes_to_transformers_or_is_refused_before_the_start(
    fake_vllm: Path, base: Path
) -> None:
    whole = adapter(base, "whole", modules_to_save=["lm_head"])
    with pytest.raises(ServeFailed, match="modules_to_save: lm_head"):
        serve(base, whole, engine="vllm", gpus=0)
    with pytest.raises(RankTooHigh, match="max_lora_rank=64"):
        serve(base, adapter(base, "great", r=48), engine="vllm", gpus=0, max_lora_rank=16)
    assert not fake_vllm.exists()


def test_an_adapter_over_the_rank_of_the_running_server_says_what_to_start_it_with(fake_vllm: Path, base: Path) -> None:
    great = adapter(base, "great", r=48)
    with serve(base, gpus=0, progress=None) as server:
        with pytest.raises(RankTooHigh, match=r"rank is 48.*rank 32 at most.*max_lora_rank=64"):
            server.load_adapter(great)
        assert models(server.base) == ("tiny",)


def test_an_engine_that_ends_leaves_the_catalogue(fake_vllm: Path, base: Path) -> None:
    with serve(base, gpus=0, progress=None) as server:
        assert "tiny" in Catalogue.load().names
        os.kill(json.loads(fake_vllm.read_text())["pid"], signal.SIGKILL)
        until(lambda: not server.running, "the end of the server", 60)
        until(lambda: Catalogue.load().names == (), "its leaving the catalogue", 30)
        assert "stopped" in repr(server)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_and_its_workers_end_with_the_command(fake_vllm: Path, base: Path, number: signal.Signals) -> None:
    code = "from ipytune.endpoints.serve_command import app; app()"
    command = [sys.executable, "-c", code, "serve", str(base), "--engine", "vllm", "--gpus", "0", "--name", "mine"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        record = json.loads(parent.stdout.readline())
        assert record["model"] == "tiny" and "mine" in Catalogue.load().names
        seen = json.loads(fake_vllm.read_text())
        parent.send_signal(number)
        assert parent.wait(60) == (-9 if number == signal.SIGKILL else 0)
    until(lambda: not exists(seen["pid"]) and not exists(seen["worker"]), "the end of the server", 60)
    until(lambda: not Path(record["key_file"]).parent.exists(), "the removal of its files", 30)
    assert Catalogue.load().names == ()
