"""A merged model is base plus adapter, rounded once, whatever kind of LoRA it was; what cannot be merged is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ipytune.adapter import merge as merging
from ipytune.adapter.merge import Stored, merge, shards
from ipytune.adapter.source import AdapterError
from tests.ipytune.adapter import tiny

IDS = torch.arange(3, 40).unsqueeze(0)


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model.eval()(input_ids=IDS).logits
    return result


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"q_proj": 3}},
    ],
    ids=["plain", "rslora", "dora", "patterns"],
)
def test_it_answers_as_the_adapter_does(llama: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    adapter = tiny.save_adapter(llama, tmp_path / "adapter", **options)
    base: Any = AutoModelForCausalLM.from_pretrained(llama)
    before = logits(base)
    expected = logits(PeftModel.from_pretrained(base, str(adapter)))
    out = merge(adapter, tmp_path / "merged")
    found = logits(AutoModelForCausalLM.from_pretrained(out))
    assert (expected - before).abs().max() > 0.5  # the adapter does something
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_an_adapter_begun_with_pissa_and_converted(llama: Path, tmp_path: Path) -> None:
    peft = tiny.peft_model(llama, init_lora_weights="pissa")
    peft.peft_config["default"].init_lora_weights = True
    peft.save_pretrained(str(tmp_path / "start"))
    peft.peft_config["default"].init_lora_weights = "pissa"
    tiny.disturb(peft)
    expected = logits(peft)
    peft.save_pretrained(str(tmp_path / "adapter"), path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    out = merge(tmp_path / "adapter", tmp_path / "merged", base=llama)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(out)), expected, atol=1e-3, rtol=1e-3)


def test_a_half_precision_base_is_rounded_once(tmp_path: Path) -> None:
    base = tiny.save_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = tiny.save_adapter(base, tmp_path / "adapter")
    found = load_file(merge(adapter, tmp_path / "merged") / "model.safetensors")
    weights, parts = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    name = "model.layers.0.mlp.down_proj"
    a, b = (parts[f"base_model.model.{name}.lora_{part}.weight"].float() for part in "AB")
    expected = (weights[f"{name}.weight"].float() + 2.0 * (b @ a)).bfloat16()
    assert torch.equal(found[f"{name}.weight"], expected)
    untouched = "model.layers.0.input_layernorm.weight"
    assert torch.equal(found[untouched], weights[untouched])


def test_a_type_of_ones_own(adapter: Path, tmp_path: Path) -> None:
    out = merge(adapter, tmp_path / "merged", dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    with pytest.raises(AdapterError, match="dtype must be float32, bfloat16 or float16, not 'int8'"):
        merge(adapter, tmp_path / "other", dtype="int8")  # type: ignore[arg-type]


def test_it_is_written_in_parts_and_loads(
    adapter: Path, merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "SHARD_BYTES", 60_000)
    out = merge(adapter, tmp_path / "parts")
    names = {file.name for file in out.glob("*.safetensors")}
    assert len(names) > 3 and f"model-00001-of-{len(names):05d}.safetensors" in names
    one, many = (logits(AutoModelForCausalLM.from_pretrained(path)) for path in (merged, out))
    assert torch.equal(one, many)
    again = merge(tiny.save_adapter(out, tmp_path / "second"), tmp_path / "of-parts")  # and as a base in parts
    assert (again / "model.safetensors.index.json").is_file()


def test_all_that_a_model_needs_comes_along(llama: Path, merged: Path) -> None:
    names = {file.name for file in llama.iterdir()} | {"config.json", "generation_config.json", "tokenizer.json"}
    assert names <= {file.name for file in merged.iterdir()}
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.chat_template == tiny.TEMPLATE
    assert not [file for file in merged.parent.iterdir() if file.name.startswith(".")]


def test_a_run_names_its_base(llama: Path, tmp_path: Path) -> None:
    run = tiny.save_run(tmp_path / "run", llama)
    settings = json.loads((run / "adapter/adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "elsewhere"
    (run / "adapter/adapter_config.json").write_text(json.dumps(settings))
    assert (merge(run, tmp_path / "merged") / "model.safetensors").is_file()


def _quantised(base: Path, adapter: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))


def _unconverted(base: Path, adapter: Path) -> None:
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"init_lora_weights": "pissa"}))


def _more_modules(base: Path, adapter: Path) -> None:
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"modules_to_save": ["lm_head"]}))


def _another_base(base: Path, adapter: Path) -> None:
    shutil.rmtree(base)
    tiny.save_model(base, hidden_size=32, intermediate_size=48)


def _no_safetensors(base: Path, adapter: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_quantised, "is quantised: .* give that as base"),
        (_unconverted, "begun with pissa, .* was not converted"),
        (_more_modules, "also trained modules_to_save"),
        (_another_base, "does not fit the base .* size mismatch"),
        (_no_safetensors, "no weights in safetensors .* save_pretrained"),
    ],
)
def test_what_cannot_be_merged_says_why(llama: Path, adapter: Path, tmp_path: Path, change: Any, words: str) -> None:
    base, mine = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(llama, base)
    shutil.copytree(adapter, mine)
    change(base, mine)
    with pytest.raises(AdapterError, match=words):
        merge(mine, tmp_path / "merged", base=base)
    assert not (tmp_path / "merged").exists() and not list(tmp_path.glob(".merged*"))


def test_nothing_there_is_replaced(adapter: Path, merged: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="exists already"):
        merge(adapter, merged)
    with pytest.raises(AdapterError, match="holds no adapter"):
        merge(tmp_path, tmp_path / "merged")


@settings(max_examples=40)
@given(st.lists(st.integers(1, 100), max_size=30), st.integers(1, 120))
def test_parts_keep_order_and_size(sizes: list[int], limit: int) -> None:
    tensors = [Stored(str(i), Path("f"), (size,), size) for i, size in enumerate(sizes)]
    parts = shards(tensors, limit)
    assert [tensor for part in parts for tensor in part] == tensors
    assert all(len(part) == 1 or sum(tensor.bytes for tensor in part) <= limit for part in parts if part)
