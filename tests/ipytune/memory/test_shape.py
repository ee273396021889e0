"""Parameters are counted from a configuration alone, exactly as the model built from it has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from ipytune.memory.shape import UnknownShape, read_shape, shape_of, stored_parameters
from ipytune.models import ModelNotFound
from tests.ipytune.lora import tiny

COMMON = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "llama"},
    {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    {"model_type": "llama", "head_dim": 24},
    {"model_type": "mistral", "head_dim": 16},
    {"model_type": "qwen2", "tie_word_embeddings": True},
    {"model_type": "qwen3", "head_dim": 16},
    {"model_type": "qwen3", "head_dim": 16, "attention_bias": True, "num_key_value_heads": 4},
    {"model_type": "smollm3", "mlp_bias": True},
    {"model_type": "apertus"},
]


def built(config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


@pytest.mark.parametrize("given", CONFIGS, ids=lambda config: "-".join(map(str, config.values())))
def test_parameters_and_adapter_are_those_of_the_model(given: dict[str, Any]) -> None:
    config = COMMON | given
    model = built(config)
    shape = shape_of(model.config.to_dict())
    assert shape == shape_of(config)  # defaults of the family need not be written down
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    targets = "all-linear" if config["model_type"] != "llama" else ["q_proj", "down_proj"]
    peft = get_peft_model(model, LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM"))
    trained = sum(parameter.numel() for parameter in peft.parameters() if parameter.requires_grad)
    assert shape.adapter_parameters(3, targets) == trained


def test_a_model_directory_is_checked_against_its_weight_files(tmp_path: Path) -> None:
    directory = tiny.save(tmp_path)
    shape = read_shape(str(directory))
    assert shape.file_bytes == (directory / "model.safetensors").stat().st_size
    assert stored_parameters([directory / "model.safetensors"], tied=False) == shape.parameters

    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UnknownShape, match="weight files .* hold .* config.json describes"):
        read_shape(str(directory))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (COMMON | {"model_type": "mixtral"}, "type mixtral .* --probe"),
        ({}, "none given"),
        (COMMON | {"model_type": "llama", "hidden_size": None}, "hidden_size: None"),
        (COMMON | {"model_type": "llama", "num_hidden_layers": -1}, "num_hidden_layers: -1"),
    ],
)
def test_what_is_not_known_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownShape, match=message):
        shape_of(config)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    for content in (b"", b"\x08", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(UnknownShape, match="model.safetensors is no safetensors file"):
            stored_parameters([tmp_path / "model.safetensors"], tied=False)


def test_a_model_that_is_nowhere_says_how_to_get_it() -> None:
    with pytest.raises(ModelNotFound, match="Check the path"):
        read_shape("./no-such-model")
