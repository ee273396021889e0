"""The estimate's terms are what our layers really keep, and they grow with what they should grow with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from ipytune.data.pack import Row
from ipytune.lora import attention, loss, short_attention
from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.lora.model import with_adapter
from ipytune.memory import estimate as module
from ipytune.memory.estimate import Estimate, Plan, estimate, kept_by_layer
from ipytune.memory.shape import shape_of

WIDTHS = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "pad_token_id": 0,
}
SMOLLM2 = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
ROW = Row(ids=tuple(range(1, 49)), learned=(True,) * 48, lengths=(24, 24))
LONG = Row(ids=tuple(i % 60 for i in range(600)), learned=(True,) * 600, lengths=(600,))


def run_config(**fields: Any) -> RunConfig:
    return RunConfig(train_file=Path("train.jsonl"), **fields)


@dataclass(eq=False)
class Kept:
    tensor: torch.Tensor


def bytes_kept(config: RunConfig, family: str, layers: int, dtype: torch.dtype, row: Row) -> int:
    """Bytes that one forward of our loop keeps for its backward, parameters apart, each storage once."""
    torch.manual_seed(0)
    model = AutoConfig.for_model(family, num_hidden_layers=layers, **WIDTHS)
    base = AutoModelForCausalLM.from_config(model, dtype=dtype, attn_implementation=attention.register())
    trainable = with_adapter(base, config, "made-here")
    trainable.recompute("all" if config.gradient_checkpointing == "always" else "none")
    own = {parameter.untyped_storage().data_ptr() for parameter in trainable.peft.parameters()}
    alive: WeakSet[Kept] = WeakSet()  # the graph holds them: what it drops before the backward does not count

    def keep(tensor: torch.Tensor) -> Kept:
        alive.add(kept := Kept(tensor))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        end = trainable.loss(row)
    storages = {kept.tensor.untyped_storage().data_ptr(): kept.tensor.untyped_storage() for kept in alive}
    assert end.requires_grad
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in own)


@pytest.mark.parametrize(
    ("family", "dtype", "fields", "row"),
    [
        ("llama", "float32", {}, ROW),
        ("llama", "bfloat16", {}, ROW),
        ("qwen3", "float32", {}, ROW),
        ("qwen3", "bfloat16", {}, ROW),
        ("apertus", "bfloat16", {}, ROW),
        ("qwen3", "bfloat16", {"lora": LoraSettings(rank=4, targets=("q_proj", "down_proj"))}, ROW),
        ("llama", "bfloat16", {"lora": LoraSettings(dropout=0.1)}, ROW),
        ("llama", "float32", {"lora": LoraSettings(dropout=0.1)}, ROW),
        ("llama", "bfloat16", {"lora": LoraSettings(dora=True)}, ROW),
        ("qwen3", "bfloat16", {"gradient_checkpointing": "always"}, ROW),
        ("llama", "float32", {}, LONG),
        ("llama", "bfloat16", {}, LONG),
    ],
)
def test_a_layer_keeps_what_is_estimated(family: str, dtype: Any, fields: dict[str, Any], row: Row) -> None:
    config = run_config(**fields)
    plan = Plan(
        config, shape_of({"model_type": family, "num_hidden_layers": 1, **WIDTHS}), "cpu", dtype, max(row.lengths)
    )
    torch_dtype = getattr(torch, dtype)
    measured = (bytes_kept(config, family, 4, torch_dtype, row) - bytes_kept(config, family, 2, torch_dtype, row)) / 2
    expected = len(row.ids) * (plan.shape.hidden * plan.element if plan.recomputes else kept_by_layer(plan))
    assert expected == pytest.approx(measured, rel=0.03)


def test_constants_are_those_of_the_loss() -> None:
    assert module.LOGITS_PER_CHUNK == loss.LOGITS_PER_CHUNK
    assert module.SHORT == short_attention.LONGEST


def test_parts_of_a_known_model() -> None:
    """SmolLM2-135M in float32: 134,515,008 parameters; rank 16 on all linear layers: 4,884,480."""
    found = estimate(run_config(), SMOLLM2)
    assert found.of("weights") == 4 * 134_515_008
    assert (found.of("adapter"), found.of("optimiser")) == (4 * 4_884_480, 8 * 4_884_480)
    assert found.total == sum(part.bytes for part in found.parts)
    assert found.host == found.total  # on a CPU the host is the device


def test_four_bits_take_a_quarter_of_the_layers() -> None:
    plain = estimate(run_config(), SMOLLM2, device="cuda", dtype="bfloat16")
    four = estimate(run_config(quantise="nf4"), SMOLLM2, device="cuda", dtype="bfloat16")
    shape = shape_of(SMOLLM2)
    saved = shape.layers * shape.linear_parameters * (2 - 0.5159)
    assert plain.of("weights") - four.of("weights") == pytest.approx(saved, rel=1e-3)


def test_sharding_divides_the_layers_and_not_the_ends() -> None:
    def weights(processes: int) -> int:
        found = estimate(run_config(parallel="fsdp"), SMOLLM2, device="cuda", dtype="bfloat16", processes=processes)
        return found.of("weights")

    shape = shape_of(SMOLLM2)
    layers = 2 * shape.layers * shape.layer_parameters
    assert weights(1) - weights(3) == pytest.approx(layers * (1 - 1 / 3 - 2 / shape.layers))


def test_a_row_is_no_longer_than_what_a_step_holds() -> None:
    small = estimate(run_config(batch_size=2), SMOLLM2, longest=100)
    assert small.plan.row == 200
    assert estimate(run_config(batch_size=2), SMOLLM2, longest=100, processes=2).plan.row == 100
    assert estimate(run_config(), SMOLLM2, longest=5000).plan.row == 1024  # max_length bounds it


@pytest.mark.parametrize("wrong", [{"longest": 0}, {"learned": 1.5}, {"processes": 0}])
def test_impossible_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        estimate(run_config(), SMOLLM2, **wrong)


@settings(max_examples=40, deadline=None)
@given(
    row=st.integers(256, 8192),
    more=st.integers(1, 4096),
    rank=st.integers(1, 128),
    device=st.sampled_from(["cpu", "cuda"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    quantise=st.sampled_from(["none", "nf4"]),
    recompute=st.sampled_from(["never", "always"]),
)
def test_more_tokens_or_rank_never_need_less(
    row: int, more: int, rank: int, device: Any, dtype: Any, quantise: Any, recompute: Any
) -> None:
    def needed(row_tokens: int, rank: int) -> Estimate:
        fields = {"quantise": quantise, "gradient_checkpointing": recompute, "lora": LoraSettings(rank=rank)}
        config = run_config(row_tokens=row_tokens, max_length=256, batch_size=64, **fields)
        return estimate(config, SMOLLM2, device=device, dtype=dtype)

    here = needed(row, rank)
    for larger in (needed(row + more, rank), needed(row, rank + 8)):
        assert larger.total >= here.total and larger.host >= here.host
