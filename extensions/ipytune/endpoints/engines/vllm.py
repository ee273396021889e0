"""vLLM's command and environment. Pure.

The key goes through VLLM_API_KEY, never through an option: options are read by everyone who runs `ps`. Sources:
vLLM's `serve` options and environment variables; its routes that load adapters want VLLM_ALLOW_RUNTIME_LORA_UPDATING.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ipytune.adapter.load import SERVED_RANKS, served_rank
from ipytune.endpoints.engines.choose import memory_share
from ipytune.endpoints.engines.facts import Gpu, Vllm
from ipytune.endpoints.engines.plan import Plan

# What runs are usually trained with; room for one costs little, a server to be started again costs minutes.
USUAL_RANK = 32
_ADAPTERS_AT_ONCE = 4  # in one batch; requests for a fifth wait for the next
_START_SECONDS = 1800.0  # weights of a large model from a busy file system, and its compilation
_GIB = 1024**3
_INSIDE = Path(__file__).with_name("inside")
_MIDDLEWARE = "ipytune_require_key.RequireKey"  # vLLM by itself wants its key under /v1 only


def plan(
    vllm: Vllm,
    model: Path,
    name: str,
    *,
    host: str,
    port: int,
    gpus: Sequence[Gpu] = (),
    max_lora_rank: int = USUAL_RANK,
    memory: int | None = None,
    environ: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
) -> Plan:
    """model: a directory.   name: how requests call it.   max_lora_rank: 0 starts it without adapters.
    memory: free bytes of main memory, of which a server on the CPU takes a part for its cache.   extra: further options
    of `vllm serve`, after ours, so that they win."""
    options = ["--model", str(model)] if vllm.takes_model_as_option else [str(model)]
    options += ["--served-model-name", name, "--host", host, "--port", str(port)]
    options += ["--middleware", _MIDDLEWARE]
    if max_lora_rank:
        options += ["--enable-lora", "--max-lora-rank", str(rank_limit(max_lora_rank))]
        options += ["--max-loras", str(_ADAPTERS_AT_ONCE)]
    if len(gpus) > 1:
        options += ["--tensor-parallel-size", str(len(gpus))]
    share = memory_share(gpus)
    if share is not None:
        options += ["--gpu-memory-utilization", f"{share:g}"]
    if not gpus:
        options.append("--enforce-eager")  # on a CPU compiling takes longer than a trial of a small model lasts
    return Plan(
        engine="vllm",
        command=(*vllm.command, *options, *extra),
        environment=environment(vllm, gpus, memory, environ or {}),
        without=() if vllm.ours else ("PYTHONHOME", "VIRTUAL_ENV"),
        key_variable="VLLM_API_KEY",
        port=port,
        max_lora_rank=rank_limit(max_lora_rank),
        start_seconds=_START_SECONDS,
    )


def rank_limit(rank: int) -> int:
    """What --max-lora-rank is set to for adapters up to `rank`: vLLM takes certain values only. 0: no adapters."""
    return min(served_rank(rank), SERVED_RANKS[-1]) if rank else 0


def environment(vllm: Vllm, gpus: Sequence[Gpu], memory: int | None, environ: Mapping[str, str]) -> dict[str, str]:
    """What is added to the session's own."""
    added = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "HF_HUB_OFFLINE": "1",  # the model is a directory: nothing is to be asked of a network that may not be there
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": ",".join(gpu.name for gpu in gpus),
        # Another environment's Python must not find this one's packages.
        "PYTHONPATH": _joined(str(_INSIDE), environ.get("PYTHONPATH", "") if vllm.ours else ""),
    }
    if not vllm.ours:
        # Its compilers and tools lie beside its interpreter.
        added["PATH"] = _joined(str(Path(vllm.command[0]).parent), environ.get("PATH", "/usr/bin:/bin"))
    if not gpus and "VLLM_CPU_KVCACHE_SPACE" not in environ:
        added["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, min(4, int((memory or 4 * _GIB) / 4 / _GIB))))
    return added


def refuses(settings: Mapping[str, Any]) -> str | None:
    """Why vLLM does not take an adapter with this adapter_config.json, in words; None when it does."""
    if settings.get("use_dora"):
        return "vLLM serves no DoRA adapters."
    if settings.get("modules_to_save"):
        whole = ", ".join(map(str, settings["modules_to_save"]))
        return f"vLLM serves no adapter that holds whole layers (modules_to_save: {whole})."
    rank = settings.get("r")
    if isinstance(rank, int) and rank > SERVED_RANKS[-1]:
        return f"vLLM serves adapters up to rank {SERVED_RANKS[-1]}, and this one has {rank}."
    return None


def _joined(*paths: str) -> str:
    return os.pathsep.join(path for path in paths if path)
