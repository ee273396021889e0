"""`ipytune evaluate --endpoint`: the result, its files, going on, and how failures are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipytune.evaluate.commands import app
from ipytune.mock import Behaviour, MockServer, start_mock
from tests.browser.lab import until

KEY = "marker-SECRET-4711"
ANSWERS = {f"q{i}": {"base": f"a{i}" if i % 2 else "wrong", "tuned": f"a{i}"} for i in range(10)}
COMMAND = [sys.executable, "-c", "from ipytune.evaluate.commands import app; app()"]


@pytest.fixture
def mock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MockServer]:
    with start_mock(Behaviour(answers=ANSWERS, models=("base", "tuned")), process=False) as server:
        endpoints = [{"name": name, "base_url": server.url, "model": name} for name in ("base", "tuned")]
        monkeypatch.setenv("IPYTUNE_ENDPOINTS", json.dumps(endpoints))
        monkeypatch.setenv("IPYTUNE_ENDPOINTS_FILE", str(tmp_path / "none.yaml"))
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
        yield server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "held-out.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q{i}", "expected": f"a{i}"}) + "\n" for i in range(10)))
    return path


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, " ".join(result.output.split())


def test_endpoints_by_name_are_compared_and_the_files_written(mock: MockServer, data: Path, tmp_path: Path) -> None:
    words = ["--endpoint", "base", "--endpoint", "tuned", "--data", data, "--scorer", "exact", "--scorer", "regex:^a"]
    code, said = run(*words, "--output", tmp_path / "out")
    assert code == 0, said
    assert "100 %" in said and "5 of 10" in said
    assert "exact: tuned and base are not distinguishable: +50.0 points" in said  # five questions show little
    assert "expected a0" in said and "base wrong" in said
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "report.csv", "report.json", "answers.jsonl", "evaluation.json"} <= written
    assert mock.stats().requests == 20
    assert run(*words, "--output", tmp_path / "out")[0] == 0 and mock.stats().requests == 20


def test_a_url_is_an_endpoint_too(mock: MockServer, data: Path, tmp_path: Path) -> None:
    code, said = run("--endpoint", mock.url, "--model", "tuned", "--data", data, "--output", tmp_path / "out")
    assert code == 0 and "10 of 10" in said
    code, said = run("--endpoint", mock.url, "--data", data)
    assert code == 1 and "Name one with --model" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--endpoint", "bose"], "bose"),
        (["--endpoint", "base"], "Nothing to evaluate on"),
        (["--endpoint", "base", "--data", "absent.jsonl"], "absent.jsonl"),
        (["--endpoint", "base", "--data", "DATA", "--scorer", "exakt"], "Did you mean exact"),
        (["--endpoint", "base", "--data", "DATA", "--adapter", "x"], "--adapter is for a model on this machine"),
        (["--endpoint", "base", "--data", "DATA", "--rubric", "x"], "Name one with --judge"),
        (["--endpoint", "base", "--data", "DATA", "--judge", "base", "--rubric", "@absent.txt"], "absent.txt"),
        (["--endpoint", "base", "--data", "DATA", "--judge", "tuned", "--pairwise"], "at least two endpoints"),
        (["--data", "DATA", "--scorer", "exact"], "--scorer is for endpoints"),
        ([], "Nothing to evaluate on"),
    ],
)
def test_failures_are_sentences(mock: MockServer, data: Path, words: list[str], told: str) -> None:
    code, said = run(*(str(data) if word == "DATA" else word for word in words))
    assert code == 1 and told in said and "Traceback" not in said
    assert mock.stats().requests == 0


def test_an_endpoint_that_was_given_up_is_a_failure_with_the_others_results(
    mock: MockServer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints = json.loads(os.environ["IPYTUNE_ENDPOINTS"])
    endpoints[1]["model"] = "no-such-model"
    monkeypatch.setenv("IPYTUNE_ENDPOINTS", json.dumps(endpoints))
    code, said = run("--endpoint", "base", "--endpoint", "tuned", "--data", data, "--output", tmp_path / "out")
    assert code == 1 and "5 of 10" in said and "tuned was given up" in said and "no-such-model" in said


def test_what_a_model_wrote_does_not_steer_the_terminal(data: Path, tmp_path: Path) -> None:
    with start_mock(Behaviour(text="\x1b]0;owned\x07[red]x[/red]"), process=False) as mock:
        code, said = run("--endpoint", mock.url, "--data", data, "--output", tmp_path / "out")
    assert code == 0 and "\x1b" not in said and "\x07" not in said and "[red]x[/red]" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_130_and_what_was_paid(data: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    with start_mock(Behaviour(text="a", ttft=0.3)) as mock:
        child = subprocess.Popen(
            [*COMMAND, "--endpoint", mock.url, "--data", str(data), "--output", str(out), "--concurrency", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        try:
            until(lambda: (out / "answers.jsonl").exists() and (out / "answers.jsonl").stat().st_size > 0, "an answer")
            child.send_signal(number)
            said, _ = child.communicate(timeout=60)
        finally:
            child.kill()
            child.wait()
        assert child.returncode == 130 and "Traceback" not in said
        assert "The same command goes on" in " ".join(said.split())
        assert (out / "answers.jsonl").read_bytes().count(b"\n") == mock.stats().requests < 10


def test_no_key_is_in_the_output(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)
    with start_mock(Behaviour(key=KEY, error_rate=0.5, repeat_key=True, seed=2), process=False) as mock:
        code, said = run(
            "--endpoint",
            mock.url,
            "--model",
            "mock",
            "--key-env",
            "LAB_KEY",
            "--data",
            data,
            "--output",
            tmp_path / "out",
        )
    assert code == 0 and "have no answer" in said and KEY not in said


def test_help_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, ipytune.evaluate.commands; print({'torch', 'numpy', 'jsonschema'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
