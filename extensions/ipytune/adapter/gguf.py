"""A model directory as one GGUF file, for llama.cpp and the programs built on it.

Written with the `gguf` package, which llama.cpp's authors publish for it; their converter itself is a script in their
repository and no package that can be depended on. Llama (SmolLM2 too), Mistral, Qwen2 and Qwen3 are known here; another
architecture is refused by name. Tensors are read, converted and written one at a time; the file is renamed when whole.

Source of the layout: the GGUF specification, and the readers of llama.cpp and transformers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, LlamaFileType, RopeScalingType, TensorNameMap, get_tensor_name_map, quantize
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES, Keys
from gguf.quants import quant_shape_to_byte_shape
from torch import Tensor

from ipytune.adapter.merge import Stored, checkpoint, read
from ipytune.adapter.source import AdapterError
from ipytune.adapter.vocabulary import Vocabulary, read_vocabulary

Kind = Literal["f32", "f16", "bf16", "q8_0"]

_TYPES = {"f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0}
_FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
}
# transformers' model_type -> GGUF's architecture. Mistral is Llama there.
_ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
}
_Q8_BLOCK = 32  # weights that share a scale; a row of another length stays in half precision
_QUANTISATION_VERSION = 2  # of the formats of blocks, as gguf counts them


@dataclass(frozen=True)
class Shape:
    """What GGUF must say of a model; from its configuration."""

    architecture: MODEL_ARCH
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    eps: float
    rope_base: float
    rope: dict[str, Any]
    vocabulary: int
    tied: bool


def gguf(model_dir: Path | str, out: Path | str, kind: Kind = "f16") -> Path:
    """Writes the model (as `merge` makes it) to the file `out`, and returns it.

    kind: f32; f16; bf16, exact for a bfloat16 model; q8_0, half of f16 with a scale for each 32 weights. Norms and
    biases are always float32. Raises AdapterError for what cannot be converted exactly, or when `out` exists.
    """
    directory, out = Path(model_dir).expanduser(), Path(out).expanduser().absolute()
    if kind not in get_args(Kind):
        raise AdapterError(f"kind must be one of {', '.join(get_args(Kind))}, not {kind!r}.")
    if out.exists():
        raise AdapterError(f"{out} exists already. Name a new file, or remove that one first.")
    if not (directory / "config.json").is_file():
        raise AdapterError(f"{directory} is no model directory: it holds no config.json. Merge the adapter first.")
    config = _config(directory)
    shape = shape_of(config)
    tensors = {stored.name: stored for stored in checkpoint(directory)}
    rows = tensors["model.embed_tokens.weight"].shape[0] if "model.embed_tokens.weight" in tensors else shape.vocabulary
    vocabulary = read_vocabulary(directory, rows)
    named = _names(tensors, shape)

    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    writer = GGUFWriter(aside, cast(str, _architecture_name(shape.architecture)))
    try:
        _describe(writer, shape, vocabulary, kind, directory.name)
        factors = _frequency_factors(config, shape)
        _write_tensors(writer, named, factors, shape, kind)
        writer.close()
        aside.replace(out)
    finally:
        writer.close()
        aside.unlink(missing_ok=True)
    return out


def shape_of(config: Any) -> Shape:
    """From transformers' configuration; raises AdapterError for an architecture or a variant that is not known."""
    architecture = _ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise AdapterError(
            f"GGUF is written here for {', '.join(_ARCHITECTURES)} models, and this one is {config.model_type}. "
            f"Convert it with llama.cpp's convert_hf_to_gguf.py, or serve the merged directory with vLLM."
        )
    if getattr(config, "quantization_config", None):
        raise AdapterError("The model is quantised already. Convert the one that it was made from.")
    if config.hidden_act not in {"silu", "swish"}:
        raise AdapterError(
            f"The model's activation is {config.hidden_act}; readers of GGUF assume silu for {config.model_type}."
        )
    rope = dict(getattr(config, "rope_parameters", None) or {})
    return Shape(
        architecture=architecture,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        feed_forward=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        context=_context(config),
        eps=config.rms_norm_eps,
        rope_base=float(rope.get("rope_theta", 10000.0)),
        rope=rope,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
    )


def permuted(weight: Tensor, heads: int) -> Tensor:
    """Rows of Q or K for Llama in GGUF: there each pair that turns together lies side by side, in transformers half a
    head apart. weight: [heads * size, ...]"""
    size = weight.shape[0] // heads
    return weight.reshape(heads, 2, size // 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def encoded(tensor: Tensor, type_: Type, name: str) -> np.ndarray[Any, Any]:
    """The bytes of one tensor as the file holds them; raises AdapterError when float16 is too narrow."""
    if type_ is Type.BF16:
        return tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
    values = tensor.float().contiguous().numpy()
    if type_ is Type.F16 and np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
        raise AdapterError(f"{name} holds values that f16 cannot (over 65504). Use bf16.")
    return cast("np.ndarray[Any, Any]", quantize(values, type_))


def type_of(shape: tuple[int, ...], kind: Kind) -> Type:
    """Vectors (norms, biases) stay float32: they are small, and everything passes through them."""
    if len(shape) == 1:
        return Type.F32
    if kind == "q8_0" and shape[-1] % _Q8_BLOCK:
        return Type.F16
    return _TYPES[kind]


def _config(directory: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(directory)
    except (ValueError, KeyError) as error:
        raise AdapterError(f"{directory / 'config.json'} cannot be read: {str(error)[:300]}") from error


def _context(config: Any) -> int:
    """No longer than a sliding window, which readers do not apply to these models: within it the answers are equal."""
    window = getattr(config, "sliding_window", None)
    used = window is not None and (config.model_type == "mistral" or bool(getattr(config, "use_sliding_window", False)))
    return min(config.max_position_embeddings, window) if used else int(config.max_position_embeddings)


def _architecture_name(architecture: MODEL_ARCH) -> str:
    return cast(str, MODEL_ARCH_NAMES[architecture])


def _names(tensors: dict[str, Stored], shape: Shape) -> list[tuple[str, Stored]]:
    """GGUF's name of each tensor of the checkpoint."""
    names: TensorNameMap = get_tensor_name_map(shape.architecture, shape.layers)
    named: list[tuple[str, Stored]] = []
    for stored in tensors.values():
        if stored.name.endswith("rotary_emb.inv_freq") or (shape.tied and stored.name == "lm_head.weight"):
            continue  # computed by the reader; the same as the embedding
        name = names.get_name(stored.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise AdapterError(
                f"The model has a tensor {stored.name}, for which GGUF's {_architecture_name(shape.architecture)} has "
                f"no name. Convert it with llama.cpp's convert_hf_to_gguf.py."
            )
        named.append((name, stored))
    if not shape.tied and "lm_head.weight" not in tensors:
        raise AdapterError("The model's files hold no lm_head.weight, and its head is not tied to the embeddings.")
    return named


def _describe(writer: GGUFWriter, shape: Shape, vocabulary: Vocabulary, kind: Kind, name: str) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(_QUANTISATION_VERSION)
    writer.add_vocab_size(len(vocabulary.tokens))
    for key, value in _numbers(shape).items():
        if isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    _describe_rope(writer, shape)

    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_token_scores(vocabulary.scores)
    for add, token in (
        (writer.add_bos_token_id, vocabulary.bos),
        (writer.add_eos_token_id, vocabulary.eos),
        (writer.add_pad_token_id, vocabulary.pad),
        (writer.add_unk_token_id, vocabulary.unk),
        (writer.add_eot_token_id, vocabulary.also_ends),
    ):
        if token is not None:
            add(token)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    writer.add_add_space_prefix(vocabulary.add_space)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)


def metadata_of(config: Any) -> dict[str, Any]:
    """The numbers of a model by their names in a GGUF file, from transformers' configuration."""
    shape = shape_of(config)
    return {"general.architecture": _architecture_name(shape.architecture), **_numbers(shape)}


def _numbers(shape: Shape) -> dict[str, int | float]:
    values = {
        Keys.LLM.CONTEXT_LENGTH: shape.context,
        Keys.LLM.EMBEDDING_LENGTH: shape.hidden,
        Keys.LLM.BLOCK_COUNT: shape.layers,
        Keys.LLM.FEED_FORWARD_LENGTH: shape.feed_forward,
        Keys.Attention.HEAD_COUNT: shape.heads,
        Keys.Attention.HEAD_COUNT_KV: shape.kv_heads,
        Keys.Attention.KEY_LENGTH: shape.head_size,
        Keys.Attention.VALUE_LENGTH: shape.head_size,
        Keys.Attention.LAYERNORM_RMS_EPS: float(shape.eps),
        Keys.Rope.DIMENSION_COUNT: shape.head_size,
        Keys.Rope.FREQ_BASE: float(shape.rope_base),
    }
    return {key.format(arch=_architecture_name(shape.architecture)): value for key, value in values.items()}


def _describe_rope(writer: GGUFWriter, shape: Shape) -> None:
    kind = shape.rope.get("rope_type", "default")
    if kind in {"default", "llama3"}:  # llama3's is a tensor of factors
        return
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(shape.rope["factor"]))
    elif kind == "yarn":
        unusual = {"mscale", "mscale_all_dim", "attention_factor", "truncate"} & {k for k, v in shape.rope.items() if v}
        if unusual:
            raise AdapterError(
                f"The model's yarn scaling sets {', '.join(sorted(unusual))}, which is not converted here."
            )
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(shape.rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(shape.rope.get("original_max_position_embeddings") or shape.context))
        writer.add_rope_scaling_yarn_beta_fast(float(shape.rope.get("beta_fast") or 32))
        writer.add_rope_scaling_yarn_beta_slow(float(shape.rope.get("beta_slow") or 1))
    else:
        raise AdapterError(
            f"The model's rope scaling is {kind}; default, linear, llama3 and yarn are converted here. Convert it with "
            f"llama.cpp's convert_hf_to_gguf.py."
        )


def _frequency_factors(config: Any, shape: Shape) -> np.ndarray[Any, Any] | None:
    """Llama 3 slows its low frequencies, each by a factor of its own; [head_size / 2], float32."""
    if shape.rope.get("rope_type") != "llama3":
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    exponents = torch.arange(0, shape.head_size, 2, dtype=torch.float64) / shape.head_size
    plain = torch.exp(-exponents * math.log(shape.rope_base))
    return cast("np.ndarray[Any, Any]", (plain / scaled.double()).float().numpy())


def _write_tensors(
    writer: GGUFWriter,
    named: list[tuple[str, Stored]],
    factors: np.ndarray[Any, Any] | None,
    shape: Shape,
    kind: Kind,
) -> None:
    """All descriptions first, as the format wants it, then the tensors one by one."""
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for name, stored in named:
        type_ = type_of(stored.shape, kind)
        if type_ in {Type.F32, Type.F16}:
            plain = np.dtype(np.float32 if type_ is Type.F32 else np.float16)
            writer.add_tensor_info(name, stored.shape, plain, math.prod(stored.shape) * plain.itemsize)
        else:
            bytes_ = quant_shape_to_byte_shape(stored.shape, type_)
            writer.add_tensor_info(name, bytes_, np.dtype(np.uint8), math.prod(bytes_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for stored, tensor in _in_order(named):
        if shape.architecture is MODEL_ARCH.LLAMA and (heads := _turned(stored.name, shape)):
            tensor = permuted(tensor, heads)
        writer.write_tensor_data(encoded(tensor, type_of(stored.shape, kind), stored.name))


def _turned(name: str, shape: Shape) -> int | None:
    """Number of heads, for the tensors that rotary positions turn."""
    if ".self_attn.q_proj." in name:
        return shape.heads
    return shape.kv_heads if ".self_attn.k_proj." in name else None


def _in_order(named: list[tuple[str, Stored]]) -> Iterator[tuple[Stored, Tensor]]:
    """Tensors in the order of their descriptions; `checkpoint` lists them file by file, so each is opened once."""
    return read([stored for _, stored in named])
