"""A run that begins with PiSSA gives away a plain adapter: of the base that everybody has, which is never changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ipytune.adapter.merge import merge
from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.runs.directory import RunDirectory
from tests.ipytune.lora.test_loop import adapter, base, config, ending, go, losses

__all__ = ["base", "config"]  # fixtures

RANK = 4
IDS = torch.arange(3, 40).unsqueeze(0)


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def untouched(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base)


@pytest.fixture
def pissa(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"lora": LoraSettings(rank=RANK, init="pissa")})


def test_peft_loads_it_on_the_untouched_base_and_merging_equals_that(
    pissa: RunConfig, base: Path, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in load_file(base / "model.safetensors").items()}
    directory = go(pissa, tmp_path / "run")
    settings = json.loads((directory.adapter / "adapter_config.json").read_text())
    assert (settings["r"], settings["init_lora_weights"]) == (2 * RANK, True)

    tuned = logits(PeftModel.from_pretrained(untouched(base), str(directory.adapter)))
    assert (tuned - logits(untouched(base))).abs().max() > 0.01  # it has learned something
    merged = merge(directory.path, tmp_path / "merged")
    torch.testing.assert_close(logits(untouched(merged)), tuned, rtol=1e-4, atol=1e-5)

    parts, found = adapter(directory), load_file(merged / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    a, b = (parts[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    scale = settings["lora_alpha"] / settings["r"]
    torch.testing.assert_close(found[f"{name}.weight"], before[f"{name}.weight"] + scale * (b @ a))
    after = load_file(base / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_adapter_gives_the_held_out_loss_that_was_reported(pissa: RunConfig, base: Path, tmp_path: Path) -> None:
    """Which was measured over the reduced base: so the adapter is what was trained."""
    directory = go(pissa, tmp_path / "run")
    merged = merge(directory.path, tmp_path / "merged")
    measured = go(
        pissa.model_copy(update={"model": str(merged), "lora": LoraSettings(rank=RANK), "learning_rate": 1e-12}),
        tmp_path / "measured",
    )
    reported = directory.read_report()["eval_loss"]
    assert measured.read_report()["eval_loss"] == pytest.approx(reported, rel=1e-4)


def test_a_stopped_and_continued_run_gives_the_same_adapter(pissa: RunConfig, tmp_path: Path) -> None:
    whole = go(pissa, tmp_path / "whole")
    parts: RunDirectory = go(pissa, tmp_path / "parts", ending(after=5))
    go(pissa, tmp_path / "parts")
    for (step, ours), (other, theirs) in zip(losses(parts), losses(whole), strict=True):
        assert step == other and ours == pytest.approx(theirs, rel=1e-4)
    for name, weight in adapter(whole).items():
        torch.testing.assert_close(adapter(parts)[name], weight, rtol=1e-3, atol=1e-4)
