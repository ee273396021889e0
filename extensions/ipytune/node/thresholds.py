"""When a node counts as healthy: the limits of vetnode's example for Alps, and how its bandwidth is reckoned. Pure.

Source: eth-cscs/vetnode, examples/alps-ml-vetting/config.yaml and nccl_lib_eval.py: one all-reduce of 8 GB, float32,
after a warm-up; payload / seconds x 2(n-1)/n has to be over the limit. `internode` takes one GPU of each node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["intranode", "internode", "full"]

PAYLOAD = 8 * 10**9
"""Bytes of the all-reduce that the limits are for: smaller ones reach less, since each costs its latency first."""

LIMITS: dict[Scope, float] = {"intranode": 250.0, "internode": 15.0, "full": 50.0}
"""GB/s (10**9 bytes): the GPUs of one node; one GPU of each node; all GPUs of all nodes."""


@dataclass(frozen=True)
class Verdict:
    """applies: whether the measurement is of the kind that the limit was set for."""

    scope: Scope
    limit: float
    measured: float
    applies: bool
    why_not: str = ""

    @property
    def passed(self) -> bool | None:
        """None where the limit does not apply."""
        return self.measured > self.limit if self.applies else None

    def __str__(self) -> str:
        said = f"{self.scope}: {self.measured:.2f} GB/s, limit {self.limit:g} GB/s: "
        if self.passed is None:
            return said + f"not applied ({self.why_not})"
        return said + ("passed" if self.passed else "FAILED")


def bus_bandwidth(payload: int, seconds: float, processes: int) -> float:
    """GB/s that each process sends in an all-reduce, whatever their number: what a link has to carry.

    A ring sends each of n parts n-1 times to be summed and n-1 times to be spread: 2(n-1)/n of the payload.

    >>> bus_bandwidth(8 * 10**9, 0.04, 4)
    300.0
    """
    if processes < 2:
        raise ValueError(f"processes is {processes}: an all-reduce needs at least 2.")
    if seconds <= 0 or payload <= 0:
        raise ValueError(f"payload {payload} in {seconds} s is no measurement.")
    return payload / seconds * 2 * (processes - 1) / processes / 10**9


def scope_of(processes: int, nodes: int) -> Scope:
    """Which limit a set of processes falls under, one a GPU.

    >>> scope_of(4, 1), scope_of(2, 2), scope_of(8, 2)
    ('intranode', 'internode', 'full')
    """
    if nodes == 1:
        return "intranode"
    return "internode" if processes == nodes else "full"


def judge(measured: float, payload: int, processes: int, nodes: int, backend: str) -> Verdict:
    """Of a bus bandwidth in GB/s. Limits are applied to GPUs (nccl) and to payloads of at least 8 GB only."""
    scope = scope_of(processes, nodes)
    why_not = ""
    if backend != "nccl":
        why_not = f"it is for NCCL on GPUs, this is {backend} on a CPU"
    elif payload < PAYLOAD:
        why_not = f"it is for {PAYLOAD / 10**9:g} GB, this is {payload / 10**9:g} GB"
    return Verdict(scope, LIMITS[scope], measured, not why_not, why_not)
