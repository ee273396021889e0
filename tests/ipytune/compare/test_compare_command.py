"""`ipytune compare`: columns, files, exit codes, sentences; nothing of a model's text steers the terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipytune.compare.commands import app
from ipytune.mock import Behaviour, MockServer, start_mock

MARKER = "sk-MARKER-0816"


@pytest.fixture
def mock() -> Iterator[MockServer]:
    behaviour = Behaviour(models=("only",), text="harmless \x1b]0;title\x07\u202e text", key=MARKER)
    with start_mock(behaviour, process=False) as running:
        yield running


def run(*arguments: object, input: str | None = None) -> tuple[int, str]:
    environment = {"COLUMNS": "120", "A_KEY": MARKER}
    result = CliRunner().invoke(app, [str(item) for item in arguments], input=input, env=environment)
    return result.exit_code, result.output


def named(mock: MockServer) -> list[str]:
    return ["--endpoint", mock.url, "--endpoint", mock.url, "--key-env", "A_KEY"]


def test_columns_and_files(mock: MockServer, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "c.json"), "--html", str(tmp_path / "c.html")]
    code, output = run("hi", *named(mock), *files, "--diff", "--repeat", 2)
    assert code == 0, output
    assert output.count("harmless ␛]0;title") >= 2 and "\x1b" not in output and "\u202e" not in output
    assert "first token" in output and "all 2 answers are the same" in output
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["rounds"][0]["options"] == {"max_tokens": 512} and len(data["rounds"][0]["columns"]) == 2
    assert MARKER not in output + (tmp_path / "c.json").read_text() + (tmp_path / "c.html").read_text()
    code, output = run("-", *named(mock), *files, input="from standard input")
    assert code == 0 and "c-2.json" in output
    assert mock.requests()[-1].body["messages"][-1]["content"] == "from standard input"


def test_blind_tells_at_the_end(mock: MockServer) -> None:
    code, output = run("hi", *named(mock), "--blind")
    assert code == 0
    boxes, told = output.split("A is ")
    assert "only" not in boxes and "only" in told and "B is " in told


def test_a_failing_column_is_told_and_the_other_is_shown(mock: MockServer) -> None:
    mock.behave(error_first=1, error_status=418)
    code, output = run("hi", *named(mock))
    assert code == 1
    assert "harmless" in output and "418" in output and "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--temperature", "9"], "from 0 to 2"),
        (["--repeat", "0"], "from 1 to 50"),
        (["--stop", "a", "--stop", "b", "--stop", "c", "--stop", "d", "--stop", "e"], "At most 4"),
    ],
)
def test_a_wrong_option_is_a_sentence(mock: MockServer, arguments: list[str], word: str) -> None:
    code, output = run("hi", *named(mock), *arguments)
    assert code == 1 and word in " ".join(output.split()) and "Traceback" not in output
    assert mock.stats().requests == 0


def test_one_endpoint_is_no_comparison(mock: MockServer) -> None:
    code, output = run("hi", "--endpoint", mock.url, "--key-env", "A_KEY")
    assert code == 1 and "two to four" in output


def test_ctrl_c_keeps_what_came_and_ends_with_130(mock: MockServer) -> None:
    mock.behave(hang_after=1)
    with terminal("hi", *named(mock)) as (process, primary):
        deadline = time.monotonic() + 60
        while mock.stats().tokens < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = _all_of(primary, process)
    assert process.returncode == 130, said
    assert "harmless" in said and "Cancelled." in said and "Traceback" not in said
    deadline = time.monotonic() + 10
    while mock.stats().cancelled < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_in_a_terminal_a_blind_vote_is_asked_for(mock: MockServer) -> None:
    with terminal("hi", *named(mock), "--blind") as (process, primary):
        said = _all_of(primary, process, until="Which is better?")
        assert "only" not in said and "harmless" in said
        os.write(primary, b"best\n")
        said = _all_of(primary, process, until="Enter leaves it")
        assert "A, B, tie or bad" in " ".join(said.split())
        os.write(primary, b"a\n")
        said = _all_of(primary, process)
    assert process.returncode == 0, said
    assert "A is only" in said and "preferred in 1 of 1" in said


@contextmanager
def terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command in a terminal of its own, and that terminal's other end."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from ipytune.compare.commands import app; app()", *arguments],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env={**os.environ, "A_KEY": MARKER, "COLUMNS": "100", "TERM": "xterm"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(secondary)
    try:
        yield process, primary
    finally:
        process.kill()
        process.wait()
        os.close(primary)


def _all_of(primary: int, process: subprocess.Popen[bytes], until: str = "") -> str:
    """What the terminal is sent until these words come, or the process ends."""
    said = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if until and until.encode() in said:
            return said.decode("utf-8", errors="replace")
        if select.select([primary], [], [], 0.1)[0]:
            try:
                said += os.read(primary, 65536)
            except OSError:  # the other end is closed
                break
        elif process.poll() is not None:
            break
    process.wait(30)
    return said.decode("utf-8", errors="replace")
