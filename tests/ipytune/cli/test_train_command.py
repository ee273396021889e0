"""The command line trains, resumes, evaluates, stops at Ctrl-C, and says in words what is wrong."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipytune.cli import app
from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.runs import Run
from tests.ipytune.lora import tiny

LIMIT = 180.0


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    config = RunConfig(
        model=str(tiny.save(tmp_path / "model")),
        train_file=tiny.write_conversations(tmp_path / "train.jsonl", 16),
        eval_file=tiny.write_conversations(tmp_path / "held_out.jsonl", 4, first=100),
        lora=LoraSettings(rank=4),
        max_steps=4,
        threads=1,
    )
    config.to_yaml(tmp_path / "config.yaml")
    return config


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_train_then_evaluate(config: RunConfig, tmp_path: Path) -> None:
    code, output = command("train", tmp_path / "config.yaml", "--run-dir", tmp_path / "run")
    assert code == 0, output
    assert "completed at step 4 of 4" in output
    assert (tmp_path / "run/adapter/adapter_config.json").is_file()

    code, output = command("evaluate", "--run-dir", tmp_path / "run", "--output", tmp_path / "answers.json")
    assert code == 0, output
    assert "of 4 right" in output
    assert json.loads((tmp_path / "answers.json").read_text())["n"] == 4

    code, output = command("train", tmp_path / "config.yaml", "--run-dir", tmp_path / "run")
    assert code == 1
    assert "already holds a run" in output
    code, output = command("train", tmp_path / "config.yaml", "--run-dir", tmp_path / "run", "--resume")
    assert code == 0
    assert "completed at step 4" in output


def test_ctrl_c_stops_and_keeps_the_adapter(config: RunConfig, tmp_path: Path) -> None:
    config.model_copy(update={"max_steps": 100_000}).to_yaml(tmp_path / "config.yaml")
    master, terminal = pty.openpty()
    arguments = ["train", str(tmp_path / "config.yaml"), "--run-dir", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "ipytune", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    os.close(terminal)
    deadline = time.monotonic() + LIMIT
    interrupted, shown = False, b""
    try:
        while time.monotonic() < deadline:
            try:
                shown += os.read(master, 4096)
            except OSError:  # the terminal closed: the command has ended
                break
            if b"loss" in shown and not interrupted:
                process.send_signal(signal.SIGINT)
                interrupted = True
        os.close(master)
        assert process.wait(LIMIT) == 0
    finally:
        if process.poll() is None:
            process.kill()
            Run.open(tmp_path / "run").end(grace=10)
    assert b"what was learned is kept" in shown
    assert Run.open(tmp_path / "run").status().phase == "stopped"
    assert (tmp_path / "run/adapter/adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train_file: absent.jsonl", "there is no file"),
        ("train_file: t\nrank: 3", "rank: Extra inputs"),
        ("[", "not YAML"),
    ],
)
def test_a_bad_configuration_is_told_in_words(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    code, output = command("train", tmp_path / "config.yaml", "--run-dir", tmp_path / "run")
    assert code == 1
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_evaluate_says_what_is_missing(tmp_path: Path) -> None:
    assert "Nothing to evaluate on" in command("evaluate")[1]
    assert "holds no run" in command("evaluate", "--run-dir", tmp_path)[1]
    assert "No such file" in command("evaluate", "--data", tmp_path / "absent.jsonl")[1]


def test_help_does_not_import_torch() -> None:
    check = "import sys, ipytune.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
