"""`ipytune load`: a table at the end, sentences for what goes wrong, 1 or 130 where it must be."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipytune.load.commands import app
from ipytune.mock import Behaviour, MockServer, start_mock

ENDS = ["--requests", "4", "--output-tokens", "4"]


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with start_mock(Behaviour(tokens=4), process=False) as running:
        yield running


def test_a_table_and_files(mock: MockServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--endpoint", mock.url, "--concurrency", "1,2", "--objective", "ttft=9", "--output", str(out), *ENDS]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "2 at once" in result.output and "TTFT p50" in result.output and "Goodput" in result.output
    assert (out / "report.html").exists() and (out / "records.jsonl").exists()


def test_json_is_all_that_is_printed(mock: MockServer) -> None:
    result = CliRunner().invoke(app, ["--endpoint", mock.url, "--rate", "50", "--json", *ENDS])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["steps"][0]["numbers"]["succeeded"] == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "exactly one of concurrency, rates and trace"),
        (["--concurrency", "1,x"], "no list of numbers"),
        (["--concurrency", "0"], "concurrency.0"),
        (["--rate", "1", "--objective", "ttft"], "NAME=SECONDS"),
        (["--rate", "1", "--objective", "speed=1"], "objectives.speed"),
        (["--rate", "1", "--sweep", "rates"], "leave out"),
        (["--trace", "no-such-file.jsonl"], "cannot be read"),
        (["--rate", "1", "--processes", "many"], "--processes"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(mock: MockServer, words: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["--endpoint", mock.url, *words])
    assert result.exit_code == 1
    assert told in result.output.replace("\n", " ") and "Traceback" not in result.output


def test_a_server_that_is_not_there_is_told() -> None:
    result = CliRunner().invoke(app, ["--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--rate", "1", *ENDS])
    assert result.exit_code == 1 and "cannot be reached" in result.output.replace("\n", " ")


def test_ctrl_c_shows_what_was_measured_and_exits_with_130(tmp_path: Path) -> None:
    code = "from ipytune.load.commands import app; app()"
    with start_mock(Behaviour(itl=0.005, tokens=8)) as mock:
        words = ["--endpoint", mock.url, "--concurrency", "2", "--duration", "120", "--output-tokens", "8"]
        with subprocess.Popen(
            [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child:
            while mock.stats().completed < 8:
                assert child.poll() is None
            child.send_signal(signal.SIGINT)
            output = child.communicate(timeout=60)[0]
    assert child.returncode == 130, output
    assert "2 at once" in output and "Stopped" in output and "Traceback" not in output
