from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipytune.endpoints.engines.shape import Shape, read_shape, shape_of


def test_heads_and_bytes_of_a_model_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 9, "num_key_value_heads": 3}))
    (tmp_path / "a.safetensors").write_bytes(b"12345")
    (tmp_path / "pytorch_model.bin").write_bytes(b"the same weights once more")
    assert read_shape(tmp_path) == Shape(9, 3, 5)


def test_models_that_keep_the_language_part_apart_and_those_that_say_nothing() -> None:
    assert shape_of({"text_config": {"num_attention_heads": 16}}, 1) == Shape(16, 16, 1)
    assert shape_of({"n_head": 12}, 1) == Shape(12, 12, 1)
    assert shape_of({"num_attention_heads": None, "text_config": 3}, 1) == Shape(0, 0, 1)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config.json"):
        read_shape(tmp_path)
