"""The probe measures one real step of the loop; too little memory is an answer, whatever form it takes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from ipytune.cli_memory import memory
from ipytune.lora.config import ConfigError, LoraSettings, RunConfig
from ipytune.lora.model import Trainable
from ipytune.memory.probe import ProbeFailed, Step, answer, probe
from tests.ipytune.lora import tiny


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    config = RunConfig(
        model=str(tiny.save(tmp_path / "model")),
        train_file=tiny.write_conversations(tmp_path / "train.jsonl", 40),
        lora=LoraSettings(rank=4),
        row_tokens=64,
        max_length=64,
        threads=1,
    )
    config.to_yaml(tmp_path / "config.yaml")
    return config


def command(*arguments: object) -> tuple[int, str, str]:
    app = Typer()
    app.command()(memory)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_estimates_measures_and_compares(config: RunConfig, tmp_path: Path) -> None:
    code, output, log = command(tmp_path / "config.yaml", "--probe", "--json")
    assert code == 0, log
    found = json.loads(output)
    assert found["verdict"] == "fits" and found["probe"]["fits"]
    assert found["probe"]["longest"] <= found["probe"]["row"] <= 64
    assert found["probe"]["peak"] >= found["probe"]["loading"] > 0


def test_the_command_says_what_is_wrong(config: RunConfig, tmp_path: Path) -> None:
    code, output, _ = command(tmp_path / "config.yaml")
    assert code == 0 and "activations" in output and "Fits" in output
    (tmp_path / "other.yaml").write_text("train_file: t.jsonl\nmodel: ./nowhere\n")
    code, _, log = command(tmp_path / "other.yaml")
    assert code == 1 and "nowhere" in log
    config.model_copy(update={"device": "cuda"}).to_yaml(tmp_path / "gpu.yaml")
    code, output, _ = command(tmp_path / "gpu.yaml", "--gpu-memory", "1")
    assert code == 3 and "a GPU of 1 GiB" in output


def test_one_step_in_this_process(config: RunConfig) -> None:
    step = Step(config)
    found = step.measured()
    assert found.fits and found.learned > 0
    assert all(state["step"] == 2 for state in step.optimizer.state.values())  # once before, as in any later step


def test_running_out_of_memory_is_an_answer(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Trainable, row: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Trainable, "loss", full)
    found = Step(config).measured()
    assert not found.fits and "does not fit: needs more than" in str(found)


def test_other_errors_are_not_taken_for_too_little_memory(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Trainable, row: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Trainable, "loss", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        Step(config).measured()


def test_how_a_probe_ended() -> None:
    killed = answer(-signal.SIGKILL, "loading\n", 7 * 2**30)
    assert not killed.fits and "needs more than 7.00 GiB" in str(killed)
    with pytest.raises(ProbeFailed, match="DatasetError: no file"):
        answer(1, 'x\n{"error": "DatasetError: no file"}\n', 0)
    with pytest.raises(ProbeFailed, match="exit code 1 and no result.*\n{half"):
        answer(1, "{half", 0)


def test_a_missing_file_is_named_before_anything_starts(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train_file: there is no file"):
        probe(config.model_copy(update={"train_file": tmp_path / "gone.jsonl"}))
