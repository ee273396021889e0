"""Which of the run's processes this is, from the environment that torchrun or srun gave it. No torch import.

torchrun's variables win: under `srun torchrun` both are set, and srun counts launchers, not trainers. A job script's
own shell is no rank of anything: only a step of srun is, which alone has SLURM_STEP_NUM_TASKS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# Names of: rank, number of processes, rank on this machine.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")

# What a process that starts runs of its own must not hand on: they would take themselves for a rank of its step.
_OF_A_RANK = frozenset({*_TORCHRUN, *_SRUN, "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"})


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """0 ... world_size()-1; 0 alone. Raises ValueError when the environment contradicts itself."""
    return _read(environment)[0]


def world_size(environment: Mapping[str, str] = os.environ) -> int:
    """Processes of the run on all nodes; 1 alone."""
    return _read(environment)[1]


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """The rank among the processes on this machine: the number of its GPU."""
    return _read(environment)[2]


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process writes status, events and checkpoints: exactly one of a run does."""
    return rank(environment) == 0


def without_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a run of its own, started from a process that may be a rank itself."""
    return {name: value for name, value in environment.items() if name not in _OF_A_RANK}


def _read(environment: Mapping[str, str]) -> tuple[int, int, int]:
    for names in (_TORCHRUN, _SRUN):
        if names[1] in environment and names[0] in environment:
            return _numbers(environment, names)
    if "RANK" in environment or "WORLD_SIZE" in environment:
        raise ValueError(
            "Of RANK and WORLD_SIZE only one is set. Start the trainer with torchrun, which sets both, or unset it."
        )
    return 0, 1, 0


def _numbers(environment: Mapping[str, str], names: tuple[str, str, str]) -> tuple[int, int, int]:
    given = {name: environment.get(name, "0") for name in names}
    if not all(text.isdecimal() and text.isascii() for text in given.values()):
        raise ValueError(f"{given} are no ranks: numbers are expected. Start the trainer with torchrun or srun.")
    this, size, local = (int(text) for text in given.values())
    if not 0 <= local <= this < size:
        raise ValueError(f"{given} contradict each other: a rank is below the number of processes.")
    return this, size, local
