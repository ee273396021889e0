"""Which engine serves, on which GPUs, with how much of their memory. Pure: facts in, a choice with its reason out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ipytune.endpoints.engines.facts import VLLM_VARIABLE, Facts, Gpu, Vllm
from ipytune.endpoints.engines.failure import ServeFailed
from ipytune.endpoints.engines.plan import EngineName, Wanted
from ipytune.endpoints.engines.shape import Shape

# Weights, as much again for the cache of keys and values, activations and graphs: below it long prompts soon queue.
_ROOM = 2.0
# vLLM's own default of the share of a GPU's memory that it takes, at most; on a shared GPU less is free.
_MOST_OF_GPU = 0.9
_LEFT_FREE = 0.03


@dataclass(frozen=True)
class Choice:
    """engine, the GPUs that it gets (none: it computes on the CPU), and why, in a sentence for the user."""

    engine: EngineName
    gpus: tuple[Gpu, ...]
    why: str


def choose(
    wanted: Wanted, facts: Facts, shape: Shape, *, gpus: int | None = None, vllm_refuses: str | None = None
) -> Choice:
    """The best engine that can do it, or the one that is wanted.

    gpus: at most so many; None leaves it to us: the fewest that hold the model.   vllm_refuses: what among that which
    is to be served vLLM does not take, in words. Raises ServeFailed with what is missing and how to get it.
    """
    if gpus is not None and gpus > len(facts.gpus):
        raise ServeFailed(
            f"{gpus} GPU{'s are' if gpus > 1 else ' is'} asked for, and this session has {len(facts.gpus)}.",
            "",
            "Ask for fewer, or start a session with more.",
        )
    if wanted != "transformers":
        reason = _no_vllm(facts, gpus, vllm_refuses)
        if reason is None:
            assert facts.vllm is not None
            chosen = _placed(facts, shape, gpus)
            return Choice("vllm", chosen, f"vLLM{_version(facts.vllm)} on {_place(chosen)}: many requests at once.")
        if wanted == "vllm":
            raise ServeFailed("vLLM cannot serve this here.", reason[0], reason[1])
    else:
        reason = ("transformers was asked for.", "")
    if not facts.transformers:
        raise ServeFailed(
            "No server can be started.",
            f"The libraries for serving are not installed in this environment{_and(reason[0], wanted)}.",
            "Install them: pip install 'ipytune[serve]'.",
        )
    chosen = most_free(facts.gpus)[: 1 if gpus is None else min(gpus, 1)]
    return Choice("transformers", chosen, f"transformers on {_place(chosen)}: {_lower(reason[0])}")


def parallel_size(shape: Shape, gpus: Sequence[Gpu], most: int | None = None) -> int:
    """Over how many of `gpus` (with the most free first) the model is split. At least 1, at most `most`.

    A size is possible when it divides the attention heads and fits the key and value heads, one way round or the
    other (they are repeated when there are fewer than GPUs). Where `most` was asked, the greatest possible; else the
    fewest that hold the model with room for its cache, since every split costs messages between GPUs.
    """
    limit = len(gpus) if most is None else min(most, len(gpus))
    sizes = [size for size in range(1, limit + 1) if _fits_heads(shape, size)] or [1]
    if most is not None:
        return sizes[-1]
    for size in sizes:
        free = [gpu.free if gpu.free is not None else gpu.total for gpu in gpus[:size]]
        known = [value for value in free if value is not None]
        if not shape.weight_bytes or (len(known) == size and min(known) * size >= _ROOM * shape.weight_bytes):
            return size
        if len(known) < size:
            break  # nothing known of the memory: all of them, as was asked of the scheduler
    return sizes[-1]


def most_free(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The GPUs with the most free memory first: one of them may be training."""
    return tuple(sorted(gpus, key=lambda gpu: -(gpu.free or 0)))


def memory_share(gpus: Sequence[Gpu]) -> float | None:
    """The share of each GPU's memory that vLLM is to take, when its own default would be more than is free.

    vLLM refuses to start when less is free than it wants: a notebook that has a model loaded is reason enough.
    """
    shares = [gpu.free / gpu.total for gpu in gpus if gpu.free is not None and gpu.total]
    if not shares or min(shares) - _LEFT_FREE >= _MOST_OF_GPU:
        return None
    return max(math.floor(round((min(shares) - _LEFT_FREE) * 100, 6)) / 100, 0.05)


def _no_vllm(facts: Facts, gpus: int | None, refuses: str | None) -> tuple[str, str] | None:
    """Why vLLM is not for this, and the remedy; None when it is."""
    vllm = facts.vllm
    if vllm is None:
        return (
            "vLLM is not installed here.",
            f"Install it (pip install vllm), or let {VLLM_VARIABLE} name the python of an environment that has it.",
        )
    if refuses is not None:
        return refuses, "Serve it with engine='transformers', or merge the adapter (ipytune merge)."
    on_gpu = bool(facts.gpus) and gpus != 0
    if on_gpu and vllm.build == "cpu":
        return "the vLLM that is installed computes on CPUs only.", "Install vLLM's build for GPUs, or ask for gpus=0."
    if not on_gpu and vllm.build == "gpu":
        return (
            "the vLLM that is installed needs a GPU.",
            "Start a session with a GPU, or install its build for CPUs.",
        )
    return None


def _placed(facts: Facts, shape: Shape, gpus: int | None) -> tuple[Gpu, ...]:
    if not facts.gpus or gpus == 0:
        return ()
    order = most_free(facts.gpus)
    return order[: parallel_size(shape, order, gpus)]


def _fits_heads(shape: Shape, size: int) -> bool:
    key_values = shape.key_value_heads
    return shape.heads % size == 0 and (key_values % size == 0 or (key_values > 0 and size % key_values == 0))


def _place(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return "the CPU"
    return f"{len(gpus)} GPUs ({', '.join(gpu.name for gpu in gpus)})" if len(gpus) > 1 else f"GPU {gpus[0].name}"


def _version(vllm: Vllm) -> str:
    return f" {vllm.version}" if vllm.version else ""


def _lower(words: str) -> str:
    return words if words.startswith("vLLM") else words[:1].lower() + words[1:]


def _and(reason: str, wanted: Wanted) -> str:
    return f", and {_lower(reason).rstrip('.')}" if wanted == "auto" else ""
