"""A run goes on as if it had never stopped, keeps what it learned, and says why it ended. In this process, tiny."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from ipytune.data.findings import DatasetError
from ipytune.data.validate import load
from ipytune.lora import checkpoint
from ipytune.lora.config import RunConfig
from ipytune.lora.loop import train
from ipytune.runs.directory import CHECKPOINT_NOW, RunDirectory, curve
from ipytune.runs.recorder import Recorder
from tests.ipytune.lora import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def config(base: Path, tmp_path: Path) -> RunConfig:
    return tiny.task(tmp_path, base, max_steps=8, checkpoint_every=3)


def go(config: RunConfig, path: Path, wants_end: Callable[[], str | None] = lambda: None) -> RunDirectory:
    directory = RunDirectory(path)
    if not directory.exists:
        directory.create(config.as_yaml())
    train(config, load(config.train_file, config.eval_file), directory, Recorder(directory), wants_end)
    return directory


def ending(after: int, reason: str = "stop") -> Callable[[], str | None]:
    """Says so when asked for the (after + 1)-th time: before step after + 1."""
    asked: Iterator[int] = iter(range(after))
    return lambda: None if next(asked, None) is not None else reason


def adapter(directory: RunDirectory) -> dict[str, torch.Tensor]:
    return load_file(directory.adapter / "adapter_model.safetensors")


def losses(directory: RunDirectory) -> list[tuple[int, float]]:
    return [(point["step"], point["loss"]) for point in curve(directory.read_events()[0])]


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_stopped_and_continued_run_equals_an_uninterrupted_one(config: RunConfig, tmp_path: Path) -> None:
    whole = go(config, tmp_path / "whole")
    parts = go(config, tmp_path / "parts", ending(after=5))
    assert parts.read_report()["ended_by"] == "stop"
    go(config, tmp_path / "parts")
    assert losses(parts) == losses(whole)
    assert same(adapter(parts), adapter(whole))
    report = parts.read_report()
    assert (report["step"], report["tokens"]) == (8, whole.read_report()["tokens"])


def test_a_run_killed_between_checkpoints_continues_from_the_last_whole_one(config: RunConfig, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill() -> str | None:
        if killed.read_status().step == 5:
            raise Killed
        return None

    whole, killed = go(config, tmp_path / "whole"), RunDirectory(tmp_path / "killed")
    with pytest.raises(Killed):
        go(config, killed.path, kill)
    with killed.events.open("a") as torn:
        torn.write('{"kind": "metr')
    newer = killed.checkpoints / "step-4"
    newer.mkdir()
    (newer / "manifest.json").write_text('{"state.pt": "0"}')
    go(config, killed.path)
    assert {"kind": "resumed", "step": 3} in killed.read_events()[0]
    assert losses(killed) == losses(whole)
    assert same(adapter(killed), adapter(whole))


def test_a_stop_keeps_checkpoint_adapter_and_report(config: RunConfig, tmp_path: Path) -> None:
    directory = go(config, tmp_path / "run", ending(after=2, reason="SIGTERM"))
    status, report = directory.read_status(), directory.read_report()
    assert (status.phase, status.step) == ("stopped", 2)
    assert (report["ended_by"], report["step"], report["total_steps"]) == ("SIGTERM", 2, 8)
    assert checkpoint.latest(directory.checkpoints) == directory.checkpoints / "step-2"
    model = PeftModel.from_pretrained(tiny.model(), str(directory.adapter))
    assert any(parameter.abs().sum() > 0 for name, parameter in model.named_parameters() if "lora_B" in name)


def test_max_minutes_ends_with_everything_kept(config: RunConfig, tmp_path: Path) -> None:
    directory = go(config.model_copy(update={"max_minutes": 1e-9}), tmp_path / "run")
    assert directory.read_status().phase == "completed"
    assert directory.read_report()["ended_by"] == "max_minutes"
    assert directory.read_report()["step"] == 1


def test_the_adapter_gives_the_loss_that_was_reported(config: RunConfig, tmp_path: Path) -> None:
    from ipytune.data.template import render
    from ipytune.data.tokenizer import load_tokenizer

    directory = go(config, tmp_path / "run")
    model: Any = PeftModel.from_pretrained(tiny.model(), str(directory.adapter)).eval()
    tokenizer: Any = load_tokenizer(config.model)
    assert config.eval_file is not None
    total = learned = 0.0
    for example in load(config.eval_file).train:
        tokens = render(tokenizer, example.as_dicts())
        ids = torch.tensor([tokens.ids])
        labels = torch.where(torch.tensor([tokens.learned]), ids, -100)
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * sum(tokens.learned)
        learned += sum(tokens.learned)
    report = directory.read_report()
    assert total / learned == pytest.approx(report["eval_loss"], rel=1e-4)
    assert report["loss"] < report["first_loss"]


def test_only_the_newest_checkpoints_are_kept(config: RunConfig, tmp_path: Path) -> None:
    directory = go(config.model_copy(update={"checkpoint_every": 1}), tmp_path / "run")
    assert sorted(path.name for path in directory.checkpoints.iterdir()) == ["step-6", "step-7"]


def test_a_checkpoint_can_be_asked_for(config: RunConfig, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create(config.as_yaml())
    directory.ask(CHECKPOINT_NOW)
    go(config.model_copy(update={"checkpoint_every": 0}), directory.path)
    assert [event["step"] for event in directory.read_events()[0] if event["kind"] == "checkpoint"] == [1]
    assert not directory.asked(CHECKPOINT_NOW)


def test_a_conversation_over_max_length_is_named_and_never_cut(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train.jsonl:1: \d+ tokens, over max_length 8. Raise max_length"):
        go(config.model_copy(update={"max_length": 8}), tmp_path / "run")


def test_a_loss_that_is_no_number_ends_the_run_with_a_remedy(config: RunConfig, tmp_path: Path) -> None:
    from ipytune.lora.loop import checked

    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        checked(float("nan"), 3, config)


def test_a_damaged_checkpoint_does_not_count(config: RunConfig, tmp_path: Path) -> None:
    directory = go(config, tmp_path / "run")
    newest = checkpoint.latest(directory.checkpoints)
    assert newest is not None and newest.name == "step-6"
    state = newest / "state.pt"
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    older = checkpoint.latest(directory.checkpoints)
    assert older is not None and older.name == "step-3"
