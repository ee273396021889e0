"""Whether the client itself kept up: how late its loop ran, how much of a core it used; and what to say of it.

A client near its limit makes a server look slow: above about half its ceiling TTFT and ITL grow though the server does
what it did. So this is sampled in every run, and a run that may be the client's rather than the server's is flagged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ipytune.load.numbers import percentile

_EVERY = 0.02  # seconds between samples of the lag
LAG_LIMIT = 0.005  # seconds, 99th percentile. The kernel's timer alone makes 1 ms
QUEUE_LIMIT = 0.010  # seconds, 99th percentile, from due to taken up
CPU_LIMIT = 0.85  # of one core


@dataclass(frozen=True)
class Vitals:
    """Of one process. lags: seconds that the loop was late.   seconds: how long it was watched."""

    lags: tuple[float, ...] = ()
    cpu_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def cpu_share(self) -> float:
        return self.cpu_seconds / self.seconds if self.seconds > 0 else 0.0

    def packed(self) -> dict[str, Any]:
        return {"lags": list(self.lags), "cpu_seconds": self.cpu_seconds, "seconds": self.seconds}

    @classmethod
    def unpacked(cls, fields: dict[str, Any]) -> Vitals:
        return cls(tuple(fields["lags"]), fields["cpu_seconds"], fields["seconds"])


class VitalsSampler:
    """Samples from its making until `stop()`, in the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lags: list[float] = []
        self._began = time.monotonic()
        self._cpu = time.process_time()
        self._vitals: Vitals | None = None
        self._due = self._began
        self._handle: asyncio.TimerHandle | None = None
        self._arm()

    def stop(self) -> Vitals:
        """What was sampled. A second call gives the same."""
        if self._vitals is None:
            if self._handle is not None:
                self._handle.cancel()
            seconds = time.monotonic() - self._began
            self._vitals = Vitals(tuple(self._lags), time.process_time() - self._cpu, seconds)
        return self._vitals

    def _arm(self) -> None:
        self._due = max(self._due + _EVERY, time.monotonic())
        self._handle = self._loop.call_at(self._due, self._sample)

    def _sample(self) -> None:
        self._lags.append(max(time.monotonic() - self._due, 0.0))
        self._arm()


def reasons(vitals: Sequence[Vitals], queue_times: Sequence[float], in_flight_limit: bool = False) -> tuple[str, ...]:
    """Why the numbers may be the client's and not the server's; empty when nothing speaks for it."""
    found = []
    lag = max((percentile(sorted(one.lags), 99) for one in vitals if one.lags), default=0.0)
    share = max((one.cpu_share for one in vitals), default=0.0)
    queue = percentile(sorted(queue_times), 99) if queue_times else 0.0
    if lag > LAG_LIMIT:
        found.append(f"its event loop ran {lag * 1000:.1f} ms late (99th percentile, limit {LAG_LIMIT * 1000:g} ms)")
    if queue > QUEUE_LIMIT:
        found.append(
            f"it took requests up {queue * 1000:.1f} ms after they were due (99th percentile, limit "
            f"{QUEUE_LIMIT * 1000:g} ms)"
        )
    if share > CPU_LIMIT:
        found.append(f"it used {share:.0%} of a core (limit {CPU_LIMIT:.0%})")
    if in_flight_limit:
        found.append("it reached the largest number of requests in flight that the plan allows (max_in_flight)")
    return tuple(found)
