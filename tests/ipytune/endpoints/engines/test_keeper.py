"""Nothing that is kept outlives its caller: not the command, not what it started, not what got away from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipytune.endpoints.engines.kept import Kept
from tests.browser.lab import until

KEY = "sk-marker-that-must-not-be-seen"

# A command with a worker that has a session of its own, ignores SIGTERM, and whose parent ends before it.
STUBBORN = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
between = os.fork()
if between == 0:
    os.setsid()
    if os.fork() == 0:
        Path("worker").write_text(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.waitpid(between, 0)
while not (Path("worker").exists() and Path("worker").read_text()):
    time.sleep(0.01)
Path("command.new").write_text(str(os.getpid()))
os.rename("command.new", "command")
time.sleep(600)
"""
# The same as a session would start it, from a process that has also forked one that lives on with all its pipes.
CALLER = """
import os, sys, time
from pathlib import Path
from ipytune.endpoints.engines import kept as module
module.GRACE = 0.2
kept = module.Kept.start([sys.executable, "-c", os.environ["STUBBORN"]], Path(sys.argv[1]))
if os.fork() == 0:
    os.setsid()
    Path(sys.argv[1], "..", "forked").resolve().write_text(str(os.getpid()))
    time.sleep(60)
print(kept.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_text(KEY)
    return folder


@pytest.fixture
def kept_ones() -> Iterator[list[Kept]]:
    started: list[Kept] = []
    yield started
    for kept in started:
        kept.stop()


def exists(pid: int) -> bool:
    """Running; what has ended and only waits to be collected is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def pid_in(file: Path) -> int:
    until(lambda: file.exists() and bool(file.read_text()), f"{file.name}'s process", 30)
    return int(file.read_text())


def test_stopping_ends_the_stubborn_too(
    directory: Path, kept_ones: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipytune.endpoints.engines.kept.GRACE", 0.2)
    kept = Kept.start([sys.executable, "-c", STUBBORN], directory)
    kept_ones.append(kept)
    command, worker = pid_in(directory / "command"), pid_in(directory / "worker")
    assert exists(command) and exists(worker) and kept.running
    kept.stop()
    assert not kept.running and not exists(command) and not exists(worker)
    assert directory.exists()  # the caller lives, and removes it itself
    kept.stop()


def test_the_killed_keeper_takes_the_command_along(directory: Path, kept_ones: list[Kept]) -> None:
    kept = Kept.start([sys.executable, "-c", STUBBORN], directory)
    kept_ones.append(kept)
    command = pid_in(directory / "command")
    os.kill(kept.pid, signal.SIGKILL)
    until(lambda: not exists(command), "the end of the command", 30)
    os.kill(pid_in(directory / "worker"), signal.SIGKILL)  # which nobody knows of any more


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_callers_end_is_the_end_of_all(directory: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "STUBBORN": STUBBORN}
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, str(directory)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert caller.stdout is not None
    with caller.stdout:
        keeper = int(caller.stdout.readline())
        command, worker = pid_in(directory / "command"), pid_in(directory / "worker")
        forked = pid_in(directory.parent / "forked")
        caller.send_signal(number)
        caller.wait(30)
    try:
        # though the forked process still holds a copy of the pipe's other end
        until(lambda: not any(map(exists, (keeper, command, worker))), "the end of all", 60)
        assert not directory.exists()
    finally:
        os.kill(forked, signal.SIGKILL)


def test_the_key_is_in_the_commands_variable_and_nowhere_else(directory: Path, kept_ones: list[Kept]) -> None:
    code = "import os, time; open('seen', 'w').write(os.environ['ENGINE_KEY']); time.sleep(600)"
    kept = Kept.start([sys.executable, "-c", code], directory, key_variable="ENGINE_KEY", environment={"A": "b"})
    kept_ones.append(kept)
    until(lambda: (directory / "seen").exists() and (directory / "seen").read_text() == KEY, "the key", 30)
    spec = (directory / "engine.json").read_text()
    assert KEY not in spec and json.loads(spec)["environment"] == {"A": "b"}
    assert KEY.encode() not in Path(f"/proc/{kept.pid}/cmdline").read_bytes()
    assert KEY.encode() not in Path(f"/proc/{kept.pid}/environ").read_bytes()


@pytest.mark.parametrize(("code", "seen"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)])
def test_the_end_of_the_command_is_told_as_it_was(directory: Path, kept_ones: list[Kept], code: str, seen: int) -> None:
    kept = Kept.start([sys.executable, "-c", f"print('words', flush=True); {code}"], directory)
    kept_ones.append(kept)
    assert kept.wait() == seen and kept.code == seen and not kept.running
    assert kept.tail(1) == "words" and kept.log_text(2) == "rds\n"


def test_what_another_environment_must_not_see_is_taken_away(
    directory: Path, kept_ones: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOR_US_ALONE", "x")
    code = "import os; print('FOR_US_ALONE' in os.environ, flush=True)"
    kept = Kept.start([sys.executable, "-c", code], directory, without=["FOR_US_ALONE"])
    kept_ones.append(kept)
    kept.wait()
    assert kept.tail() == "False"
