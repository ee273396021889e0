"""What of a model decides how it is spread over GPUs: its heads and the bytes of its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """heads, key_value_heads: of the attention; 0 when the configuration does not say.   weight_bytes: on disk."""

    heads: int = 0
    key_value_heads: int = 0
    weight_bytes: int = 0


def read_shape(directory: Path) -> Shape:
    """Of a model directory as save_pretrained writes it. Raises FileNotFoundError when it has no config.json."""
    file = directory / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{directory} is no model directory: it has no config.json. Give a directory as save_pretrained writes it."
        )
    config = json.loads(file.read_text(encoding="utf-8"))
    sizes = [weights.stat().st_size for weights in directory.glob("*.safetensors")]
    sizes = sizes or [weights.stat().st_size for weights in directory.glob("*.bin")]
    return shape_of(config, sum(sizes))


def shape_of(config: Mapping[str, Any], weight_bytes: int) -> Shape:
    """From the content of config.json. Models of text and pictures keep the language model's part under text_config."""
    part = config.get("text_config")
    part = part if isinstance(part, Mapping) else config
    heads = _count(part.get("num_attention_heads")) or _count(part.get("n_head"))
    return Shape(heads, _count(part.get("num_key_value_heads")) or heads, weight_bytes)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
