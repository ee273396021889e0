"""AdamW over the adapter only, with LoRA+'s two learning rates where they are asked for."""

from __future__ import annotations

import torch
from torch import nn

from ipytune.lora.config import RunConfig

# Adam's usual 0.999 would let the large gradients of the first steps slow all steps of a run of some hundred.
BETAS = (0.9, 0.95)


def adamw(named: list[tuple[str, nn.Parameter]], config: RunConfig) -> torch.optim.AdamW:
    """`named`: the trainable parameters as PEFT names them. Each group's `ratio` multiplies the step's learning rate:
    config.lora.plus_ratio for B, where an update of the same size changes the output more slowly (arXiv 2402.12354)."""
    ratio = config.lora.plus_ratio or 1.0
    second = [parameter for name, parameter in named if ".lora_B." in name]
    others = [parameter for name, parameter in named if ".lora_B." not in name]
    return torch.optim.AdamW(
        [{"params": others, "ratio": 1.0}, {"params": second, "ratio": ratio}],
        lr=config.learning_rate,
        betas=BETAS,
        weight_decay=config.weight_decay,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["ratio"]
