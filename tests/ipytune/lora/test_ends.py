"""A run that stops learning ends by itself with its best adapter; one that runs out of memory goes on with less."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ipytune.data.pack import Row
from ipytune.lora import checkpoint, loop, schedule
from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.lora.pressure import Footprint, OutOfMemory, is_out_of_memory
from ipytune.runs.directory import RunDirectory
from tests.ipytune.lora.test_loop import adapter, base, config, ending, go, losses, same

__all__ = ["base", "config"]  # fixtures


def events(directory: RunDirectory, kind: str) -> list[dict[str, Any]]:
    return [event for event in directory.read_events()[0] if event["kind"] == kind]


@pytest.fixture
def overfitting(config: RunConfig) -> RunConfig:
    """Held-out questions whose answers follow no rule: their loss falls at first, then rises."""
    return config.model_copy(
        update={"max_steps": 60, "patience": 2, "eval_every": 2, "learning_rate": 5e-2, "checkpoint_every": 7}
    )


def test_patience_ends_the_run_and_keeps_the_best_adapter(overfitting: RunConfig, tmp_path: Path) -> None:
    directory = go(overfitting, tmp_path / "run")
    report, judged = directory.read_report(), events(directory, "evaluation")
    assert report["ended_by"] == "patience" and directory.read_status().phase == "completed"
    best = min(judged, key=lambda event: event["eval_loss"])
    assert report["adapter_step"] == best["step"] == judged[-3]["step"]
    assert report["best_eval_loss"] == best["eval_loss"]
    to_best = go(overfitting.model_copy(update={"max_steps": best["step"], "schedule": "linear"}), tmp_path / "shorter")
    assert to_best.read_report()["step"] == best["step"]
    kept = directory.checkpoints / f"step-{best['step']}"
    assert checkpoint.is_whole(kept)
    assert torch.equal(
        adapter(directory)["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"],
        _weights(kept)["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"],
    )


def _weights(directory: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(directory / "adapter_model.safetensors")


def test_patience_counts_on_after_a_stop(overfitting: RunConfig, tmp_path: Path) -> None:
    whole = go(overfitting, tmp_path / "whole")
    parts = go(overfitting, tmp_path / "parts", ending(after=whole.read_report()["step"] - 1))
    go(overfitting, tmp_path / "parts")
    assert parts.read_report()["ended_by"] == "patience"
    assert losses(parts) == losses(whole)
    assert same(adapter(parts), adapter(whole))


def test_samples_are_told_and_change_nothing(config: RunConfig, tmp_path: Path) -> None:
    plain = go(config, tmp_path / "plain")
    talking = config.model_copy(update={"sample_prompts": ("w1 w2",), "sample_every": 4, "sample_tokens": 5})
    directory = go(talking, tmp_path / "talking")
    told = events(directory, "sample")
    assert [event["step"] for event in told] == [4, 8]
    assert {event["prompt"] for event in told} == {"w1 w2"} and all(isinstance(e["answer"], str) for e in told)
    assert same(adapter(directory), adapter(plain))


class Tight:
    """A machine on which a row of more than `room` tokens does not fit, or half as many again when recomputing."""

    def __init__(self, room: int) -> None:
        self.room, self.recompute, self.real = room, "none", loop.accumulate

    def __call__(self, model: Any, rows: Sequence[Row], learned: int, passes: int = 0) -> torch.Tensor:
        room = self.room * {0: 1, 1: 2, 2: 4}[sum(layer.gradient_checkpointing for layer in model.layers)]
        if any(len(row.ids) > room for row in rows):
            self.real(model, rows[:1], learned)  # some of the work is done before memory runs out
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.real(model, rows, learned, passes)


def test_memory_that_runs_out_costs_speed_and_not_the_result(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.model_copy(update={"lora": LoraSettings(rank=4)})
    roomy = go(config, tmp_path / "roomy")
    monkeypatch.setattr(loop, "accumulate", Tight(24))
    tight = go(config, tmp_path / "tight")
    said = [event["text"] for event in events(tight, "warning")]
    assert said and all(text.startswith("Memory ran out. The run goes on with rows of ") for text in said)
    assert tight.read_report()["row_tokens"] <= 32
    for (step, ours), (other, theirs) in zip(losses(tight), losses(roomy), strict=True):
        assert step == other and ours == pytest.approx(theirs, rel=1e-4)


def test_recomputation_comes_after_the_smallest_rows_and_an_error_after_that(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.model_copy(update={"max_steps": 1})
    monkeypatch.setattr(loop, "accumulate", Tight(5))
    assert go(config, tmp_path / "run").read_report()["recomputed_layers"] == "all"
    monkeypatch.setattr(loop, "accumulate", Tight(1))
    with pytest.raises(OutOfMemory, match="Lower max_length, choose a smaller model"):
        go(config, tmp_path / "hopeless")


def test_the_ladder_of_footprints() -> None:
    steps, footprint = [], Footprint(1024)
    while (smaller := footprint.smaller(longest=200, may_recompute=True)) is not None:
        steps.append((smaller.row_tokens, smaller.recompute))
        footprint = smaller
    assert steps == [(512, "none"), (256, "none"), (200, "none"), (200, "half"), (200, "all")]
    assert Footprint(100).smaller(longest=200, may_recompute=False) is None


def test_what_counts_as_running_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    text = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_a_cosine_falls_to_a_tenth(config: RunConfig) -> None:
    cosine = config.model_copy(update={"schedule": "cosine", "warmup_steps": 2, "learning_rate": 1.0})
    rates = [schedule.learning_rate(step, 100, cosine) for step in range(100)]
    assert rates[2] == 1.0 and rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[51] == pytest.approx(0.55) and rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_patience_needs_something_to_judge_by(config: RunConfig) -> None:
    with pytest.raises(ValueError, match="patience needs held-out conversations"):
        RunConfig(train_file=config.train_file, patience=2)
