"""Which notebooks run side by side: never more cores than there are, nor more memory than is free.

Two trainings on the same two cores take longer than one after the other, and their times mean nothing: each run gets
cores of its own. The longest goes first, so that the last does not run alone for long.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Demand:
    """What a notebook says of itself."""

    name: str
    seconds: float
    memory_gb: float
    cores: int


def in_order(demands: Collection[Demand]) -> list[Demand]:
    return sorted(demands, key=lambda demand: (-demand.seconds, demand.name))


def next_to_start(
    waiting: Sequence[Demand], running: Collection[Demand], cores: Collection[int], memory_gb: float
) -> tuple[Demand, tuple[int, ...]] | None:
    """The first that fits beside those that run, and its cores; None when one has to end before.

    cores: those that nobody uses; memory_gb: for all together. What is too large for this machine runs alone, with what
    there is: better late and told than never.
    """
    free_gb = memory_gb - sum(demand.memory_gb for demand in running)
    for demand in waiting:
        if not running or (demand.cores <= len(cores) and demand.memory_gb <= free_gb):
            return demand, tuple(sorted(cores)[: demand.cores])
    return None
