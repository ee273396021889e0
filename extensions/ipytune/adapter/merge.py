"""Base and adapter as one plain model directory: safetensors, tokenizer, chat template, generation settings.

- Each changed weight is computed in float32 by PEFT's own layer (so rsLoRA, DoRA and patterns of ranks are what they
  were in training) and rounded once, to the type that is written.
- The model is never in memory as a whole: one output shard (at most 2 GB) and one layer in float32 at a time.
- The directory is written aside and renamed: it is there whole or not at all.
- What cannot be merged exactly is refused: a quantised base, an unconverted PiSSA adapter, extra trained modules.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ipytune.adapter.source import Adapter, AdapterError, companions, open_adapter
from ipytune.lora.quiet import quiet_libraries
from ipytune.runs import Run

Dtype = Literal["float32", "bfloat16", "float16"]

SHARD_BYTES = 2 * 1024**3
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PREFIX = "base_model.model."
_PARTS = (".lora_A.", ".lora_B.", ".lora_magnitude_vector")


@dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint: where it lies, how large it is."""

    name: str
    file: Path
    shape: tuple[int, ...]
    bytes: int


def merge(
    source: Run | Path | str, out: Path | str, dtype: Dtype | None = None, base: str | Path | None = None
) -> Path:
    """Merges the adapter of a run (or of an adapter directory) into its base, and returns `out`.

    dtype: of all weights; None keeps the base's own.   base: as in `open_adapter`.
    Raises AdapterError for what cannot be merged, or when `out` exists; ModelNotFound.
    """
    adapter, out = open_adapter(source, base), Path(out).expanduser().absolute()
    _check_adapter(adapter)
    if out.exists():
        raise AdapterError(f"{out} exists already. Name a new directory, or remove that one first.")
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise AdapterError(f"dtype must be float32, bfloat16 or float16, not {dtype!r}.")
    directory = adapter.base_directory()
    quiet_libraries()
    tensors = checkpoint(directory)
    wanted = None if dtype is None else cast(torch.dtype, getattr(torch, dtype))
    layers = _layers(adapter, directory, {tensor.name for tensor in tensors})

    out.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(tensor.bytes for tensor in tensors) * (2 if dtype == "float32" else 1)
    if shutil.disk_usage(out.parent).free < needed:
        raise AdapterError(
            f"There is no room for the merged model beside {out}: it needs about {needed / 1e9:.1f} GB. Choose another "
            f"place."
        )
    aside = Path(mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        written = _write_weights(tensors, layers, wanted, aside)
        _write_companions(adapter, directory, aside, written)
        for file in aside.iterdir():
            file.chmod(0o644)  # safetensors writes 0600; models are shared
        aside.chmod(0o755)
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def checkpoint(directory: Path) -> list[Stored]:
    """The tensors of a model directory in the order of its files; raises AdapterError when they are not safetensors."""
    index = directory / _INDEX
    if index.is_file():
        files = sorted(
            {directory / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        )
    else:
        files = [directory / _SINGLE]
    for file in files:
        if not file.is_file():
            raise AdapterError(
                f"{directory} has no weights in safetensors ({file.name} is missing). Load the model with transformers "
                f"once and write it with save_pretrained."
            )
    found = []
    for file in files:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (no mapping)
                part = opened.get_slice(name)
                shape = tuple(part.get_shape())
                found.append(Stored(name, file, shape, torch.Size(shape).numel() * _itemsize(part.get_dtype())))
    return found


def shards(tensors: list[Stored], limit: int, scale: float = 1.0) -> list[list[Stored]]:
    """Splits a checkpoint into consecutive parts of at most `limit` bytes once written; a larger tensor is alone."""
    parts: list[list[Stored]] = [[]]
    size = 0.0
    for tensor in tensors:
        if parts[-1] and size + tensor.bytes * scale > limit:
            parts.append([])
            size = 0.0
        parts[-1].append(tensor)
        size += tensor.bytes * scale
    return parts


def _check_adapter(adapter: Adapter) -> None:
    settings = adapter.settings
    init = settings.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(("pissa", "olora", "corda", "loftq")):
        raise AdapterError(
            f"{adapter.path} was begun with {init}, which changes the base, and was not converted when it was saved. "
            f"Save it with save_pretrained(..., path_initial_model_for_weight_conversion=...); our trainer does."
        )
    for field in ("modules_to_save", "trainable_token_indices", "lora_bias"):
        if settings.get(field):
            raise AdapterError(
                f"{adapter.path} also trained {field} ({settings[field]}), which is not merged here. Use PEFT's "
                f"merge_and_unload() with the whole model in memory."
            )
    with safe_open(adapter.weights, "pt") as opened:
        names = list(opened.keys())
    odd = [name for name in names if not any(part in name for part in _PARTS)]
    if odd:
        raise AdapterError(
            f"{adapter.weights} holds tensors that are no part of LoRA ({odd[0]}, {len(odd)} in all). Use PEFT's "
            f"merge_and_unload()."
        )


def _layers(adapter: Adapter, directory: Path, names: set[str]) -> dict[str, Any]:
    """Name of a weight in the base's checkpoint -> PEFT's layer that changes it. The base in them is an empty shell."""
    from peft import PeftModel
    from peft.tuners.lora import Linear, LoraLayer
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(directory)
    if getattr(config, "quantization_config", None):
        raise AdapterError(
            f"The base {directory} is quantised: a small update would be lost in its steps. Merge into the model that "
            f"it was made from: give that as base."
        )
    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    try:
        peft = PeftModel.from_pretrained(shell, str(adapter.path), low_cpu_mem_usage=True, torch_device="cpu")
        _fill(peft, adapter.weights)
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        raise AdapterError(
            f"The adapter {adapter.path} does not fit the base {directory}: {_first_line(error)}. Give the model that "
            f"it was trained on as base."
        ) from error
    layers: dict[str, Any] = {}
    for name, module in peft.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        weight = name.removeprefix(_PREFIX) + ".weight"
        if not isinstance(module, Linear) or type(module.get_base_layer()) is not nn.Linear:
            raise AdapterError(
                f"The adapter changes {name}, a {type(module.get_base_layer()).__name__}; only linear layers are "
                f"merged here. Use PEFT's merge_and_unload()."
            )
        if weight not in names:
            raise AdapterError(
                f"The adapter changes {weight}, which is not stored in {directory} (a head tied to the embeddings, or "
                f"another model). Train without it, or use PEFT's merge_and_unload()."
            )
        if any(parameter.is_meta for key, parameter in module.named_parameters() if "base_layer" not in key):
            raise AdapterError(f"{adapter.weights} lacks the weights for {weight}. Take another checkpoint's adapter.")
        layers[weight] = module
    if not layers:
        raise AdapterError(f"The adapter {adapter.path} changes no layer of {directory}. Give its own base as base.")
    return layers


def _fill(peft: nn.Module, weights: Path) -> None:
    """Gives the layers the adapter's tensors in float32: PEFT has put them where their base is, here nowhere."""
    for name, tensor in load_file(weights).items():
        layer, _, part = name.partition(".lora_")
        kind = "lora_" + part.partition(".")[0]  # lora_A, lora_B, lora_magnitude_vector
        holder: Any = getattr(peft.get_submodule(layer), kind)["default"]
        holder.weight = nn.Parameter(tensor.float(), requires_grad=False)


def _merged(layer: Any, weight: Tensor) -> Tensor:
    """The weight [out, in] with its update, float32; the layer is left empty again."""
    shell = layer.get_base_layer()
    shell.weight = nn.Parameter(weight.float(), requires_grad=False)
    layer.merge(safe_merge=True)
    result = cast(Tensor, shell.weight.data)
    shell.weight = nn.Parameter(torch.empty(weight.shape, device="meta"), requires_grad=False)
    return result


def _write_weights(tensors: list[Stored], layers: dict[str, Any], dtype: torch.dtype | None, out: Path) -> torch.dtype:
    """Writes the shards and their index; returns the type of the weights (the commonest one, when mixed)."""
    parts = shards(tensors, SHARD_BYTES, scale=2.0 if dtype is torch.float32 else 1.0)
    where: dict[str, str] = {}
    total, counts = 0, dict[torch.dtype, int]()
    for number, part in enumerate(parts, 1):
        name = _SINGLE if len(parts) == 1 else f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        contents: dict[str, Tensor] = {}
        for stored, tensor in read(part):
            target = (dtype or tensor.dtype) if tensor.is_floating_point() else tensor.dtype
            changed = _merged(layers[stored.name], tensor) if stored.name in layers else tensor
            contents[stored.name] = _cast(changed, target, stored.name)
            where[stored.name] = name
            total += contents[stored.name].nbytes
            counts[target] = counts.get(target, 0) + tensor.numel()
        save_file(contents, out / name, metadata={"format": "pt"})
    if len(parts) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (out / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return max(counts, key=lambda kind: counts[kind])


def _cast(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    result = tensor.to(dtype).contiguous()
    if dtype is torch.float16 and not torch.isfinite(result).all():
        raise AdapterError(f"{name} holds values that float16 cannot (over 65504). Use bfloat16.")
    return result


def read(part: Iterable[Stored]) -> Iterator[tuple[Stored, Tensor]]:
    """The tensors, one at a time, file by file."""
    part = list(part)
    for file in dict.fromkeys(stored.file for stored in part):
        with safe_open(file, "pt") as opened:
            for stored in part:
                if stored.file == file:
                    yield stored, opened.get_tensor(stored.name)


def _write_companions(adapter: Adapter, directory: Path, out: Path, dtype: torch.dtype) -> None:
    """All that a plain model needs beside its weights. A tokenizer saved with the adapter goes before the base's."""
    for file in [*companions(directory), *companions(adapter.path)]:
        shutil.copyfile(file, out / file.name)
    settings = json.loads((out / "config.json").read_text(encoding="utf-8"))
    settings.pop("_name_or_path", None)
    settings.pop("torch_dtype", None)
    settings["dtype"] = str(dtype).removeprefix("torch.")
    (out / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _itemsize(name: str) -> int:
    """Bytes of one element of a safetensors type ("F32", "BF16", "I64", "F8_E4M3", "BOOL")."""
    digits = "".join(filter(str.isdigit, name.partition("_")[0]))
    return max(1, int(digits) // 8) if digits else 1


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0] if lines else type(error).__name__)[
        :300
    ]
