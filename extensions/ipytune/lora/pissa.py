"""PiSSA: the adapter begins as the base's principal components, and the base keeps the rest (arXiv 2404.02948).

The first adapter (A0, B0) is written down once, since a base reduced by it is needed to go on. What a run gives away
fits the base that everybody has: B A - B0 A0 is one plain adapter of twice the rank.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE = "first_adapter.safetensors"
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def first_adapter(peft: PeftModel) -> dict[str, Tensor]:
    """A copy of the adapter as PEFT has just made it from the base's singular vectors."""
    return {name: weight.detach().cpu().clone() for name, weight in get_peft_model_state_dict(peft).items()}


def reduce_base(peft: PeftModel, start: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes the first adapter out of the base once more, for a run that goes on; returns it."""
    with torch.no_grad():
        for name, module in peft.named_modules():
            if isinstance(module, LoraLinear):
                a, b = (start[f"{name}.lora_{part}.weight"] for part in "AB")
                base: Any = module.base_layer
                product = module.scaling["default"] * (b.to(base.weight.device) @ a.to(base.weight.device))
                base.weight.copy_(base.weight.float() - product)
    return start


def make_plain(directory: Path, start: dict[str, Tensor]) -> None:
    """Rewrites a saved adapter, B A over the reduced base, as [B, -B0] [A; A0] over the whole one: rank 2 r."""
    weights = load_file(directory / _WEIGHTS)
    for name, weight in weights.items():
        if ".lora_A." in name:
            weights[name] = torch.cat([weight, start[name]], dim=0).contiguous()  # [2 r, in]
        elif ".lora_B." in name:
            weights[name] = torch.cat([weight, -start[name]], dim=1).contiguous()  # [out, 2 r]
    save_file(weights, directory / _WEIGHTS, metadata={"format": "pt"})
    path = directory / _CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    rank, alpha = config["r"], config["lora_alpha"]
    scale = alpha / rank**0.5 if config["use_rslora"] else alpha / rank
    config.update(r=2 * rank, lora_alpha=scale * 2 * rank, use_rslora=False)
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def save(start: dict[str, Tensor], directory: Path) -> None:
    """Beside the checkpoints; replaced as a whole."""
    aside = directory / f".{FILE}"
    save_file(start, aside)
    aside.replace(directory / FILE)


def load(directory: Path) -> dict[str, Tensor] | None:
    path = directory / FILE
    return load_file(path) if path.is_file() else None
