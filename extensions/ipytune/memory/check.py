"""All steps in one: read the model's shape and what the session has, choose device and dtype, estimate, advise."""

from __future__ import annotations

from ipytune.lora.config import RunConfig
from ipytune.memory.advice import Fit, advice
from ipytune.memory.available import Available, available, choose
from ipytune.memory.estimate import Estimate, estimate
from ipytune.memory.shape import read_shape
from ipytune.processor import bfloat16_pays


def check(
    config: RunConfig,
    longest: int | None = None,
    learned: float = 1.0,
    processes: int = 1,
    there: Available | None = None,
) -> Fit:
    """Whether the run fits in this session, and what would make it fit; `there`: in another one.

    longest: tokens of the longest conversation (None: max_length); learned: part of the tokens that counts in the loss;
    processes: GPUs that it is started on. Raises UnknownShape, ModelNotFound, ValueError when there are fewer GPUs.
    """
    there = available() if there is None else there
    return advice(estimate_here(config, there, longest, learned, processes), there)


def estimate_here(
    config: RunConfig, there: Available, longest: int | None = None, learned: float = 1.0, processes: int = 1
) -> Estimate:
    """The estimate for the device and dtype that the run will choose there."""
    device, dtype = choose(config, bool(there.gpus), bfloat16_pays())
    return estimate(config, read_shape(config.model), longest, device, dtype, learned, processes)
