"""What the machine offers to a training process, and what it has used."""

from __future__ import annotations

from typing import Any, Literal

import torch

from ipytune.memory.peak import peak_resident
from ipytune.processor import bfloat16_pays, cpu_name, usable_cpus


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to train on; raises RuntimeError when a GPU is wanted and none is usable."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "device: cuda is asked for, and torch sees no GPU. Start a session with a GPU, or set device: auto."
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def choose_dtype(wanted: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """Of the frozen base; bfloat16 on a GPU, and on a CPU that is much faster in it (`processor.bfloat16_pays`)."""
    if wanted != "auto":
        return torch.float32 if wanted == "float32" else torch.bfloat16
    return torch.bfloat16 if device.type == "cuda" or bfloat16_pays() else torch.float32


def peak_memory_bytes(device: torch.device) -> int:
    """Of the GPU where one is used, else the resident set of this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident()


def describe(device: torch.device) -> dict[str, Any]:
    """The hardware, as reports name it."""
    found: dict[str, Any] = {
        "device": device.type,
        "cpu": cpu_name(),
        "cpus": usable_cpus(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found
