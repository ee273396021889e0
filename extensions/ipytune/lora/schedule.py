"""How long a run is, and the learning rate of each of its steps. Pure."""

from __future__ import annotations

import math

from ipytune.lora.config import RunConfig

COSINE_FLOOR = 0.1


def total_steps(examples: int, config: RunConfig) -> int:
    """Optimiser steps: max_steps, or those that `epochs` passes over the examples take."""
    if config.max_steps is not None:
        return config.max_steps
    return max(1, math.ceil(config.epochs * examples / config.batch_size))


def learning_rate(step: int, total: int, config: RunConfig) -> float:
    """Of optimiser step `step` (from 0): a linear warm-up, then constant, or falling linearly towards zero, or by half
    a cosine to a tenth."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "cosine":
        passed = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
        return config.learning_rate * (COSINE_FLOOR + (1 - COSINE_FLOOR) * (1 + math.cos(math.pi * passed)) / 2)
    return config.learning_rate * (total - step) / max(1, total - config.warmup_steps)
