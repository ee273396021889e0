"""A real server with a tiny model: it answers, wants its key, lists its models, and never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ipytune.endpoints import ModelNotFound, Unauthorized, chat, models
from ipytune.endpoints.serve import ServeFailed, Server, serve
from tests.browser.lab import until
from tests.browser.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Where the run's own folder lies in the working directory: it must not be taken for the model of that name.
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        running = serve(tiny, progress=None)
    with running:
        yield running
    assert not running.running and not running._directory.exists()


def test_it_answers_with_the_servers_own_token_count(server: Server) -> None:
    answer = chat(server.base, "one nodes two", max_tokens=5, temperature=0)
    assert answer.metrics.output_tokens <= 5 and not answer.metrics.estimated


def test_it_lists_the_model_by_its_short_name_and_refuses_others(server: Server) -> None:
    assert models(server.base) == ("tiny",)
    with pytest.raises(ModelNotFound, match="tiny"):
        chat(server.base.model_copy(update={"model": "other"}), "one")


def test_it_wants_its_key_for_all_but_its_health(server: Server) -> None:
    with pytest.raises(Unauthorized):
        chat(server.base.model_copy(update={"key_file": None}), "one")
    root = server.base.base_url.removesuffix("/v1")
    assert httpx.get(f"{root}/health", trust_env=False).status_code == 200
    assert httpx.post(f"{root}/load_model", json={"model": "x"}, trust_env=False).status_code == 401
    key_file = server.base.key_file
    assert key_file is not None and key_file.stat().st_mode & 0o077 == 0


def test_a_model_that_cannot_be_loaded_is_told_with_the_log(tiny: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny.iterdir():
        (broken / file.name).write_bytes(b"" if file.suffix == ".safetensors" else file.read_bytes())
    with pytest.raises(ServeFailed, match="could not load broken"):
        serve(broken, progress=None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_of_the_command_ends_with_it(tiny: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", "from ipytune.endpoints.commands import app; app()", "serve", "--model", str(tiny)]
    # A temporary directory of its own shows what is left behind.
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        assert '"model":"tiny"' in parent.stdout.readline()
        child = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()[0])
        directory = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[3].decode()
        parent.send_signal(number)
        parent.wait(30)
    until(lambda: not _exists(child), "the end of the server", 30)
    assert not Path(directory).exists()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
