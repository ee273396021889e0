"""rsLoRA, DoRA, PiSSA: each begins where the base is, trains, and what is saved answers as the trained model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from ipytune.data.pack import row_of
from ipytune.lora import attention, pissa
from ipytune.lora.config import ConfigError, LoraSettings, RunConfig
from ipytune.lora.loop import accumulate, learned_tokens
from ipytune.lora.model import Trainable, load_base, with_adapter
from ipytune.lora.optimiser import adamw, set_rate
from tests.ipytune.lora import tiny
from tests.ipytune.lora.test_golden_loss import EXAMPLES, ROWS

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "pissa and rslora": {"init": "pissa", "rslora": True},
}


def config(**lora: Any) -> RunConfig:
    return RunConfig(train_file=Path("train.jsonl"), lora=LoraSettings(rank=4, **lora), learning_rate=1e-2)


def base() -> Any:
    model = tiny.model()
    model.set_attn_implementation(attention.register())
    return model


def trained(settings: RunConfig, steps: int = 2, start: dict[str, torch.Tensor] | None = None) -> Trainable:
    model = with_adapter(base(), settings, "tiny", start)
    optimizer = adamw(model.named_parameters, settings)
    for _ in range(steps):
        set_rate(optimizer, settings.learning_rate)
        accumulate(model, ROWS, learned_tokens(EXAMPLES))
        optimizer.step()
        optimizer.zero_grad()
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([EXAMPLES[0].ids])).logits
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_begins_at_the_base(variant: str) -> None:
    model = with_adapter(base(), config(**VARIANTS[variant]), "tiny")
    torch.testing.assert_close(logits(model.peft), logits(tiny.model()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_saved_answers_like_what_was_trained(variant: str, tmp_path: Path) -> None:
    model = trained(config(**VARIANTS[variant]))
    model.save_result(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.model(), str(tmp_path))
    trained_logits = logits(model.peft)
    assert not torch.allclose(trained_logits, logits(tiny.model()), atol=1e-3)  # it has learned something
    torch.testing.assert_close(logits(loaded), trained_logits, rtol=1e-4, atol=1e-4)


def test_a_pissa_run_goes_on_over_the_same_reduced_base(tmp_path: Path) -> None:
    settings = config(init="pissa")
    model = trained(settings)
    assert model.start is not None
    pissa.save(model.start, tmp_path)
    model.save(tmp_path)
    again = trained(settings, steps=0, start=pissa.load(tmp_path))
    again.load(tmp_path)
    torch.testing.assert_close(again.loss(row_of(EXAMPLES)), model.loss(row_of(EXAMPLES)), rtol=1e-5, atol=1e-5)


def test_unknown_targets_are_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"lora\.targets.*q_projection.*down_proj, gate_proj"):
        with_adapter(base(), config(targets=("q_projection",)), "tiny")


def test_four_bits_say_what_they_need(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="quantise: nf4 needs"):
        load_base(tiny.save(tmp_path), torch.float32, torch.device("cpu"), "nf4")


def test_pissa_goes_with_nothing_that_changes_the_base_too() -> None:
    with pytest.raises(ValueError, match="pissa does not go with dora"):
        config(init="pissa", dora=True)
