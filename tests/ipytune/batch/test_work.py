"""A worker: what it runs, what it says, how it ends what shall stop. Shell scripts stand in for the notebook."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from ipytune.batch import work
from ipytune.batch.directory import BatchDirectory, SetStatus, State
from ipytune.batch.work import Worker, command

Script = Callable[[str], None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Has every set run these lines; $1 is its folder."""

    def set_script(lines: str) -> None:
        monkeypatch.setattr(work, "command", lambda _, __, one: ["bash", "-c", lines, "set", str(one.path)])

    monkeypatch.setattr(work, "POLL_SECONDS", 0.01)
    return set_script


def worker(directory: BatchDirectory, number: int | None = 0, limit: float | None = None) -> Worker:
    return Worker(directory, directory.read().submissions[-1], number, limit)


def status(directory: BatchDirectory, number: int) -> SetStatus:
    said = directory.set(number, 3).read_status()
    assert said is not None
    return said


def test_parameters_are_on_no_command_line(directory: BatchDirectory) -> None:
    one = directory.set(1, 3)
    run = [sys.executable, "-m", "ipytune", "run", str(directory.notebook), str(one.output), "-f", str(one.parameters)]
    run += ["--engine", "resumable", "--cwd", directory.read().cwd]
    assert command(directory, directory.read(), one) == run
    one.output.touch()
    assert command(directory, directory.read(), one) == [*run, "--resume"]


def test_every_set_is_run_by_one_worker(directory: BatchDirectory, script: Script) -> None:
    script('echo ran >> "$1/ran"')
    workers = [worker(directory, number) for number in range(4)]
    threads = [Thread(target=one.run, args=[(0, 1, 2)]) for one in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        assert (directory.set(number, 3).path / "ran").read_text() == "ran\n"
        assert status(directory, number).state is State.DONE and status(directory, number).ended_at is not None


def test_one_failure_does_not_end_the_others(directory: BatchDirectory, script: Script) -> None:
    script('[ "${1: -1}" = 2 ] || { echo "the last words" >&2; exit 7; }')
    assert not worker(directory).run((0, 1, 2))
    assert [status(directory, number).state for number in range(3)] == [State.FAILED, State.FAILED, State.DONE]
    assert status(directory, 0).error == "the last words"


@pytest.mark.parametrize(
    ("lines", "state", "error"),
    [
        ("exit 7", State.FAILED, "exited with code 7"),
        ("kill -KILL $$", State.FAILED, "was killed by SIGKILL (most often: out of memory)"),
        ("kill -TERM $$", State.CANCELLED, None),  # somebody ended all of the job at once
        ("exit 143", State.CANCELLED, None),
        (
            'echo \'{"cells": [{"cell_type": "code", "metadata": {}, "outputs": [{"output_type": "error", '
            '"ename": "ValueError", "evalue": "no"}]}]}\' > "$1/out.ipynb"; exit 1',
            State.FAILED,
            "ValueError: no (code cell 1)",
        ),
    ],
)
def test_how_it_ended(directory: BatchDirectory, script: Script, lines: str, state: State, error: str | None) -> None:
    script(lines)
    assert not worker(directory).run((0,))
    assert (status(directory, 0).state, status(directory, 0).error) == (state, error)


WAITS = 'trap "exit 143" TERM; touch "$1/waits"; while :; do sleep 0.01; done'
DEAF = 'trap "" TERM; touch "$1/waits"; while :; do sleep 0.01; done'


@pytest.mark.parametrize("lines", [WAITS, DEAF])
@pytest.mark.parametrize("why", [State.OUT_OF_TIME, State.CANCELLED])
def test_what_shall_stop_ends_in_time_or_by_force(
    directory: BatchDirectory, script: Script, monkeypatch: pytest.MonkeyPatch, lines: str, why: State
) -> None:
    script(lines)
    monkeypatch.setattr(work, "GRACE_SECONDS", dict.fromkeys(State, 0.3))
    running = worker(directory)
    thread = Thread(target=running.run, args=[(0,)])
    thread.start()
    while not (directory.set(0, 3).path / "waits").exists():
        assert thread.is_alive()
    directory.set(0, 3).ask_to_stop(why)
    thread.join()
    assert status(directory, 0).state is why


def test_a_set_has_its_own_time(directory: BatchDirectory, script: Script) -> None:
    script(WAITS)
    assert not worker(directory, limit=0.1).run((0, 1))
    assert [status(directory, number).state for number in (0, 1)] == [State.OUT_OF_TIME] * 2


def test_a_signal_ends_the_worker_and_leaves_the_rest(
    directory: BatchDirectory, script: Script, tmp_path: Path
) -> None:
    script(WAITS)
    running = worker(directory)
    thread = Thread(target=running.run, args=[(0, 1)])
    thread.start()
    while not (directory.set(0, 3).path / "waits").exists():
        assert thread.is_alive()
    running.signalled(signal.SIGTERM, None)
    thread.join()
    assert status(directory, 0).state is State.CANCELLED
    assert directory.set(1, 3).read_status() is None


def test_what_was_cancelled_before_it_began_is_not_run(directory: BatchDirectory, script: Script) -> None:
    script('touch "$1/ran"')
    directory.set(0, 3).ask_to_stop(State.CANCELLED)
    assert not worker(directory).run((0,))
    assert status(directory, 0).state is State.CANCELLED and not (directory.set(0, 3).path / "ran").exists()


def test_arguments_that_name_nothing(directory: BatchDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert work.main([str(directory.path), "--submission", "ffffffff", "--set", "0"]) == 1
    assert work.main([str(directory.path / "none"), "--submission", "ffffffff", "--set", "0"]) == 1
    assert "no such submission" in capsys.readouterr().err
