"""The shape of a model, from its configuration alone: layers, widths, parameters. No weights are loaded, no torch.

Known exactly are the families that the trainer takes: Llama (SmolLM2 is one), Mistral, Qwen2, Qwen3, SmolLM3, Apertus.
Others are refused by name: a wrong number that looks exact is worse than none.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipytune import models

# Families whose lm_head is the embedding unless config.json says otherwise.
_TIED_BY_DEFAULT = frozenset({"smollm3"})
_HEAD_NORMS = frozenset({"qwen3", "apertus"})
_FAMILIES = ("apertus", "llama", "mistral", "qwen2", "qwen3", "smollm3")
_MISCOUNT = 1e-3  # files also hold buffers (of xIELU), which are no parameters
_HEADER_LIMIT = 100 * 2**20  # of a safetensors file; its own readers refuse more


class UnknownShape(ValueError):
    """A model whose memory cannot be computed from its configuration; the message says what to do instead."""


@dataclass(frozen=True)
class Linear:
    """One linear layer of a decoder layer: [outputs, inputs], and what it reads, by which saved inputs are shared."""

    path: str
    inputs: int
    outputs: int
    bias: bool
    reads: str
    """`attention` (the normed input), `heads` (the attention's output), `mlp` (the normed input), `product`."""

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs + self.outputs * self.bias

    def is_target(self, targets: str | Iterable[str]) -> bool:
        """As PEFT decides it: `all-linear`, or the whole name or its end."""
        if isinstance(targets, str):
            return True
        return any(self.path == target or self.path.endswith(f".{target}") for target in targets)


@dataclass(frozen=True)
class ModelShape:
    """Widths in elements; `linears` and `other_parameters` are those of one decoder layer."""

    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    tied: bool
    linears: tuple[Linear, ...]
    other_parameters: int
    file_bytes: int = 0
    """Of the weight files where they are on this machine, else 0."""

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def head_norms(self) -> bool:
        """Whether queries and keys are normalised head by head."""
        return self.family in _HEAD_NORMS

    @property
    def layer_parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    @property
    def linear_parameters(self) -> int:
        return sum(linear.parameters for linear in self.linears)

    @property
    def parameters(self) -> int:
        """All: embedding, layers, final norm, and the head where it is not the embedding."""
        ends = self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden
        return ends + self.layers * self.layer_parameters

    def adapter_parameters(self, rank: int, targets: str | Iterable[str], dora: bool = False) -> int:
        """Sum of rank * (in + out) over the targets of all layers; DoRA adds one magnitude an output."""
        chosen = self.targets(targets)
        return self.layers * sum(rank * (t.inputs + t.outputs) + t.outputs * dora for t in chosen)

    def targets(self, targets: str | Iterable[str]) -> tuple[Linear, ...]:
        names = targets if isinstance(targets, str) else tuple(targets)
        return tuple(linear for linear in self.linears if linear.is_target(names))


def shape_of(config: Mapping[str, Any], file_bytes: int = 0) -> ModelShape:
    """The shape that a model's config.json describes; raises UnknownShape for a family that is not known."""
    family = str(config.get("model_type", ""))
    if family not in _FAMILIES:
        raise UnknownShape(
            f"The memory of a model of type {family or '(none given)'} is not known from its configuration, only that "
            f"of {', '.join(_FAMILIES)}. Measure it: ipytune memory CONFIG --probe."
        )

    def number(key: str, default: int | None = None) -> int:
        value = config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UnknownShape(
                f"The model's config.json says {key}: {value!r}, where a positive number is needed. Is it the "
                f"configuration of a language model, and whole?"
            )
        return value

    hidden, ffn, heads = number("hidden_size"), number("intermediate_size"), number("num_attention_heads")
    kv_heads = number("num_key_value_heads", heads)
    head_dim = number("head_dim", 128 if family == "qwen3" else hidden // heads)
    return ModelShape(
        family=family,
        hidden=hidden,
        layers=number("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=ffn,
        vocabulary=number("vocab_size"),
        tied=bool(config.get("tie_word_embeddings", family in _TIED_BY_DEFAULT)),
        linears=_linears(config, family, hidden, heads * head_dim, kv_heads * head_dim, ffn),
        other_parameters=2 * hidden
        + (2 * head_dim if family in _HEAD_NORMS else 0)
        + (2 if family == "apertus" and config.get("hidden_act", "xielu") == "xielu" else 0),
        file_bytes=file_bytes,
    )


def _linears(
    config: Mapping[str, Any], family: str, hidden: int, queries: int, keys: int, ffn: int
) -> tuple[Linear, ...]:
    anywhere = family not in {"qwen2", "mistral"} and bool(config.get("attention_bias"))
    qkv = anywhere or family == "qwen2"
    mlp = family in {"llama", "smollm3"} and bool(config.get("mlp_bias"))
    gate = () if family == "apertus" else (Linear("mlp.gate_proj", hidden, ffn, mlp, "mlp"),)
    return (
        Linear("self_attn.q_proj", hidden, queries, qkv, "attention"),
        Linear("self_attn.k_proj", hidden, keys, qkv, "attention"),
        Linear("self_attn.v_proj", hidden, keys, qkv, "attention"),
        Linear("self_attn.o_proj", queries, hidden, anywhere, "heads"),
        *gate,
        Linear("mlp.up_proj", hidden, ffn, mlp, "mlp"),
        Linear("mlp.down_proj", ffn, hidden, mlp, "product"),
    )


def read_shape(model: str) -> ModelShape:
    """The shape of the model that a configuration names: a directory, a bundled model, or an id on a model hub, of
    which only config.json is fetched. Raises ModelNotFound, UnknownShape."""
    source = models.resolve(model)
    if not isinstance(source, Path):
        return shape_of(_from_hub(source))
    files = sorted(source.glob("*.safetensors"))
    shape = shape_of(_as_json(source / "config.json"), sum(file.stat().st_size for file in files))
    found = stored_parameters(files, shape.tied) if files else shape.parameters
    if abs(found - shape.parameters) > _MISCOUNT * shape.parameters:
        raise UnknownShape(
            f"The weight files in {source} hold {found:,} parameters, its config.json describes {shape.parameters:,}. "
            f"Quantised weights and additions to a known family are not estimated: ipytune memory CONFIG --probe."
        )
    return shape


def stored_parameters(files: Iterable[Path], tied: bool) -> int:
    """Parameters in safetensors files, from their headers: 8 bytes of length, then JSON. A head that is stored although
    it is the embedding counts once. Raises UnknownShape for a file that is none."""
    shapes: dict[str, list[int]] = {}
    for file in files:
        with file.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER_LIMIT + 1
            try:
                header = json.loads(stream.read(length)) if length <= _HEADER_LIMIT else None
            except ValueError:
                header = None
        if not isinstance(header, dict):
            raise UnknownShape(f"{file} is no safetensors file, or only half of one. Fetch the model again.")
        shapes.update({name: entry["shape"] for name, entry in header.items() if name != "__metadata__"})
    if tied and "model.embed_tokens.weight" in shapes:
        shapes.pop("lm_head.weight", None)
    return sum(math.prod(shape) for shape in shapes.values())


def _from_hub(name: str) -> Mapping[str, Any]:
    from huggingface_hub import hf_hub_download

    try:
        return _as_json(Path(hf_hub_download(name, "config.json")))
    except UnknownShape:
        raise
    except Exception as error:  # no network, no such model, no right to it: the library has a type for each
        raise models.ModelNotFound(
            f"The configuration of {name} cannot be read ({type(error).__name__}: {str(error).splitlines()[0]}). Check "
            f"the name, or give the directory of a model that is on this machine."
        ) from error


def _as_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownShape(f"{path} cannot be read: {error}. Fetch the model again.") from error
    if not isinstance(found, dict):
        raise UnknownShape(f"{path} is no model configuration. Fetch the model again.")
    return found
