"""What a target offers now: a reading of its nodes, its age, and whether a session fits."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from .site import Resources
from .within import within

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeCapacity:
    """One node: totals and what is free of them. Memory in GB (1000^3 bytes); GPUs by type, "" for an untyped one."""

    name: str
    cpus: int
    cpus_free: float
    memory_gb: float
    memory_gb_free: float
    gpus: dict[str, int]
    gpus_free: dict[str, int]
    usable: bool = True
    partitions: frozenset[str] = frozenset()
    state: str = ""
    """Why a node is not usable, in one word: down, drained or reserved; "" for one in service."""
    reservations: frozenset[str] = frozenset()
    """Reservations that hold this node now: usable for a session that names one of them."""


@dataclass(frozen=True)
class Quota:
    """What a namespace may still take, whoever asks; None where there is no limit. Memory in GB (1000^3 bytes)."""

    sessions: int | None = None
    cpus: float | None = None
    memory_gb: float | None = None
    gpus: int | None = None

    def lacks(self, need: Resources) -> str | None:
        """What is left of the first thing that does not suffice for `need`, in words ("1 GPU"); None if all suffice."""
        if self.sessions is not None and self.sessions < need.nodes:
            return _amount(self.sessions, "session")
        if self.gpus is not None and self.gpus < need.gpus * need.nodes:
            return _amount(self.gpus, "GPU")
        if self.cpus is not None and self.cpus < need.cpus * need.nodes:
            return _amount(self.cpus, "core")
        if self.memory_gb is not None and self.memory_gb < need.memory_gb * need.nodes:
            return f"{max(0.0, self.memory_gb):.3g} GB of memory"
        return None


def _amount(left: float, what: str) -> str:
    left = max(0, left)
    return f"{left:g} {what}{'' if left == 1 else 's'}" if left else f"no {what}s"


@dataclass(frozen=True)
class Reading:
    """What a target answers when it is asked for its capacity."""

    nodes: tuple[NodeCapacity, ...]
    quota: Quota | None = None


@dataclass(frozen=True)
class Access:
    """What one user may use now on one target. None: nothing is known, so nothing is ruled out."""

    accounts: tuple[str, ...] | None = None
    partitions: tuple[str, ...] | None = None
    qos: tuple[str, ...] | None = None
    reservations: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Estimate:
    """The scheduler's guess of a start: `starts_in` seconds from now, and the `age` of the guess in seconds."""

    starts_in: float
    age: float = 0.0


class Fit(Enum):
    """Whether a session fits a target: it can start now, it must wait, it never can, or nobody knows."""

    NOW = "now"
    LATER = "later"
    NEVER = "never"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Capacity:
    """A reading of one target. `error` says why there is none; `read_at` is on time.monotonic()'s clock, in seconds.

    The last three fields are not read with the nodes. They are what is known besides for one user's request: sessions
    of this hub that wait or start there, what the user may use, and when the scheduler would start it.
    """

    target: str
    nodes: tuple[NodeCapacity, ...] = ()
    read_at: float = 0.0
    error: str | None = None
    quota: Quota | None = None
    waiting: int = 0
    access: Access = Access()
    estimate: Estimate | None = None

    @property
    def age(self) -> float:
        """Seconds since the reading."""
        return max(0.0, time.monotonic() - self.read_at)

    def of(self, partition: str | None, reservation: str | None = None) -> tuple[NodeCapacity, ...]:
        """The nodes of `partition`, or all; those that `reservation` holds, if one is named."""
        nodes = (n for n in self.nodes if partition is None or partition in n.partitions)
        return tuple(n for n in nodes if reservation is None or reservation in n.reservations)

    def gpus(
        self, gpu_type: str | None = None, partition: str | None = None, reservation: str | None = None
    ) -> dict[str, tuple[int, int]]:
        """(free now, total) by type, of one type or of all; "" for untyped ones.

        What is idle on a node that is down, or held by a reservation that is not named, counts in the total only.
        """
        free: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for node in self.of(partition, reservation):
            for kind, count in node.gpus.items():
                if gpu_type is None or kind in (gpu_type, ""):
                    total[kind] += count
                    free[kind] += node.gpus_free.get(kind, 0) if available(node, reservation) else 0
        return {kind: (free[kind], count) for kind, count in sorted(total.items()) if count}

    def out_of_service(self, partition: str | None = None, reservation: str | None = None) -> dict[str, int]:
        """Nodes that cannot take such a session now whatever is free on them, by the reason in a word."""
        away = [n for n in self.of(partition, reservation) if not available(n, reservation)]
        return dict(Counter(n.state or ("reserved" if n.usable else "out of service") for n in away))

    def fit(self, need: Resources, partition: str | None = None, reservation: str | None = None) -> Fit:
        """Whether `need` fits, on as many different nodes as it asks for, of `partition` if one is given.

        A node that a reservation holds counts for a request that names it only, and such a request has no others. A
        quota that is used up makes one wait: whoever ends gives back. Later, any node of the partition may be free.
        """
        if self.error is not None:
            return Fit.UNKNOWN
        nodes = self.of(partition)
        if sum(_fits(n, need, free=False) for n in nodes) < need.nodes:
            return Fit.NEVER
        if self.quota is not None and self.quota.lacks(need) is not None:
            return Fit.LATER
        now = sum(_fits(n, need, free=True) for n in nodes if available(n, reservation))
        return Fit.NOW if now >= need.nodes else Fit.LATER


def available(node: NodeCapacity, reservation: str | None) -> bool:
    """Whether a session that names `reservation` (None: no reservation) may use the node now."""
    if reservation is None:
        return node.usable and not node.reservations
    return reservation in node.reservations and (node.usable or node.state == "reserved")


def _count(gpus: dict[str, int], gpu_type: str | None) -> int:
    """GPUs of `gpu_type`; untyped ones count as any type, since the node does not tell."""
    return sum(n for kind, n in gpus.items() if gpu_type is None or kind in (gpu_type, ""))


def _fits(node: NodeCapacity, need: Resources, *, free: bool) -> bool:
    cpus, memory, gpus = (
        (node.cpus_free, node.memory_gb_free, node.gpus_free) if free else (node.cpus, node.memory_gb, node.gpus)
    )
    return cpus >= need.cpus and memory >= need.memory_gb and _count(gpus, need.gpu_type) >= need.gpus


SHOWS_AFTER = 1.0
"""Seconds until a target counts what is being started on it; until then it is counted here (`Capacity.waiting`)."""


class CapacityBoard:
    """The last reading of every target, shared by all users: one query per target at a time, however many ask.

    A reading younger than `fresh` seconds is handed out as it is. Nobody waits longer than `hurry` seconds for a newer
    one: then the last reading is handed out with its age, and the query goes on. One that fails or takes longer than
    `patience` seconds gives a Capacity with `error`. So a target which does not answer never blocks a page.
    """

    def __init__(
        self,
        readers: dict[str, Callable[[], Awaitable[Reading]]],
        fresh: float = 5,
        patience: float = 8,
        hurry: float = 2,
    ) -> None:
        self._readers, self._fresh, self._patience, self._hurry = readers, fresh, patience, hurry
        self._last: dict[str, Capacity] = {}
        self._outdated: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[Capacity]] = {}

    async def read(self, target: str) -> Capacity:
        last = self._last.get(target)
        if last is not None and last.age < self._fresh and not self._is_outdated(target):
            return last
        task = self._running.get(target)
        if task is None:
            task = self._running[target] = asyncio.create_task(self._query(target))
            task.add_done_callback(lambda _: self._running.pop(target, None))
        await asyncio.wait({task}, timeout=self._hurry)
        if task.done():
            return task.result()
        if last is not None and last.error is None:
            return last
        return Capacity(target, (), time.monotonic(), "it has not answered yet" if last is None else last.error)

    async def read_all(self, targets: list[str]) -> dict[str, Capacity]:
        readings = await asyncio.gather(*(self.read(target) for target in targets))
        return {reading.target: reading for reading in readings}

    def ended(self, target: str) -> None:
        """Something was just stopped there: the next read asks the target again."""
        self._outdated[target] = time.monotonic()

    def started(self, target: str) -> None:
        """Something is being started there: reads ask again once it shows, not for each of a class that starts."""
        self._outdated.setdefault(target, time.monotonic() + SHOWS_AFTER)

    def _is_outdated(self, target: str) -> bool:
        return self._outdated.get(target, math.inf) <= time.monotonic()

    async def _query(self, target: str) -> Capacity:
        if self._is_outdated(target):
            del self._outdated[target]
        try:
            reading = await within(self._readers[target](), self._patience)
            capacity = Capacity(target, reading.nodes, time.monotonic(), quota=reading.quota)
        except asyncio.TimeoutError:
            capacity = Capacity(target, (), time.monotonic(), f"it does not answer within {self._patience:.0f} s")
        except Exception as error:
            log.warning("Cannot read the capacity of %s: %s", target, error)
            capacity = Capacity(target, (), time.monotonic(), "it does not answer")
        self._last[target] = capacity
        return capacity

    @property
    def last(self) -> dict[str, Capacity]:
        """The last reading of every target that was read, however old."""
        return dict(self._last)
