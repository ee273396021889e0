"""What Prometheus sees of sessions and targets, on the hub's own page (/hub/metrics) beside JupyterHub's metrics.

Every label has a bounded set of values: targets and profiles come from the site file, everything else from the enums
and lists here; no user's name and nothing that a user typed becomes a label. What is counted at events has a function
below; what is a state (sessions, leftovers, readings) is asked for when Prometheus asks, from `track` and
`readings_from`, so it cannot drift from the truth. docs/administrator/metrics.md explains each metric.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Protocol
from weakref import WeakSet

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from .capacity import Capacity
from .session import State
from .site import Site


class Outcome(str, Enum):
    """How a start ended. MOVED: it was given up here because the session goes to another target."""

    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MOVED = "moved"


NO_REASON = "none"
OTHER_REASON = "other"
_REASONS = """
backend_down callback cancelled cluster_full crashed deadline deleted dependency disk_full environment evicted exited
fault full held home hub_unreachable image interpreter invalid_account invalid_options invalid_partition invalid_qos
invalid_reservation killed leftover limit memory no_callback no_capacity no_such_node no_user node_fail node_lost
not_reachable not_wanted package package_missing partition_down permission port port_taken preempted queue_timeout quota
refused site_error start_failed time_limit timeout unschedulable volume
"""
REASONS = frozenset(_REASONS.split()) | {NO_REASON, OTHER_REASON}
"""Values of the label `reason`: those of StartFailed. One that is missing here is counted as `other`."""

_WAITS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 43200, 86400)  # s: from free nodes to a night in the queue
_OVERHEADS = (0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300)
_CALLS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

STARTS = Counter("oberalp_starts", "Starts that ended, by outcome", ["target", "profile", "outcome", "reason"])
QUEUE_WAIT = Histogram(
    "oberalp_queue_wait_seconds", "From the submission to the start of the job or pod", ["target"], buckets=_WAITS
)
OVERHEAD = Histogram(
    "oberalp_start_overhead_seconds",
    "From the request to a usable session, without the wait in the queue",
    ["target"],
    buckets=_OVERHEADS,
)
STOPS = Histogram(
    "oberalp_stop_seconds", "From the request to stop to the proof of the end", ["target", "proved"], buckets=_OVERHEADS
)
CALLS = Histogram(
    "oberalp_scheduler_call_seconds", "Calls to a scheduler", ["target", "verb", "outcome"], buckets=_CALLS
)
MOVES = Counter("oberalp_moves", "Starts that went on to another target", ["from_target", "to_target"])
LAPSES = Counter("oberalp_leases_lapsed", "Sessions that ended because nobody renewed their lease", ["target"])
STRAYS = Counter("oberalp_strays_ended", "Jobs and pods without a session on record that were ended", ["target"])


# --- events ----------------------------------------------------------------------------------------------------------


def start_ended(
    target: str, profile: str, outcome: Outcome, reason: str = NO_REASON, *, seconds: float = 0.0, queued: float = 0.0
) -> None:
    """A start on `target` is over. `seconds` from the request to now, of which `queued` between submission and start.

    Times are observed for starts that became ready only: how long others would have waited nobody knows. `target` is ""
    if none could be chosen. `reason` is StartFailed's.
    """
    known = reason if reason in REASONS else OTHER_REASON
    STARTS.labels(target, profile, outcome.value, known).inc()
    if outcome is Outcome.READY:
        QUEUE_WAIT.labels(target).observe(max(0.0, queued))
        OVERHEAD.labels(target).observe(max(0.0, seconds - queued))


def stop_ended(target: str, *, proved: bool, seconds: float) -> None:
    """A stop came back after `seconds`, with or without the proof that the session has ended."""
    STOPS.labels(target, "yes" if proved else "no").observe(seconds)


def moved(from_target: str, to_target: str) -> None:
    """A start went on to another target, by the user's click or by the site's policy."""
    MOVES.labels(from_target, to_target).inc()


def strays_ended(target: str, count: int) -> None:
    STRAYS.labels(target).inc(count)


def lease_lapsed(target: str) -> None:
    """Nobody renewed the lease of a session on `target`; "" if it had none yet."""
    LAPSES.labels(target).inc()


def scheduler_called(target: str, verb: str, seconds: float, answered: bool) -> None:
    """One call to a scheduler took `seconds`. `verb` is the operation's name, never an argument of it."""
    CALLS.labels(target, verb, "ok" if answered else "error").observe(seconds)


# --- states ----------------------------------------------------------------------------------------------------------


class Tracked(Protocol):
    """A spawner as the gauges see it. Both are read at every scrape: plain attributes or cheap properties."""

    @property
    def counted_as(self) -> tuple[str, State] | None:
        """(target, state) of its session; None if it has none."""
        ...

    @property
    def leftover_targets(self) -> Sequence[str]:
        """The target of every job or pod of former sessions whose end is not proved; one entry each."""
        ...


class States(Collector):
    """Gauges that are computed when they are asked for. One for a process: `STATES`."""

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        self.targets: tuple[str, ...] = ()
        self.sessions: WeakSet[Tracked] = WeakSet()
        self.readings: Callable[[], Mapping[str, Capacity]] = dict
        self.silences: Callable[[], Mapping[str, float | None]] = dict
        if registry is not None:
            registry.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        sessions = list(self.sessions)
        yield self._sessions(sessions)
        yield self._leftovers(sessions)
        yield from self._capacity(self.readings())
        silent = GaugeMetricFamily(
            "oberalp_silent_seconds",
            "Since a target stopped to answer about sessions; 0 while it does",
            labels=["target"],
        )
        for target, seconds in self.silences().items():
            silent.add_metric([target], seconds or 0.0)
        yield silent

    def _sessions(self, sessions: list[Tracked]) -> GaugeMetricFamily:
        tally = Tally(counted for session in sessions if (counted := session.counted_as) is not None)
        family = GaugeMetricFamily("oberalp_sessions", "Sessions on record", labels=["target", "state"])
        for target in dict.fromkeys([*self.targets, *(target for target, _ in tally)]):
            for state in State:
                family.add_metric([target, state.value], tally[target, state])
        return family

    def _leftovers(self, sessions: list[Tracked]) -> GaugeMetricFamily:
        tally = Tally(target for session in sessions for target in session.leftover_targets)
        family = GaugeMetricFamily("oberalp_leftovers", "Former sessions whose end is not proved", labels=["target"])
        for target in dict.fromkeys([*self.targets, *tally]):
            family.add_metric([target], tally[target])
        return family

    @staticmethod
    def _capacity(readings: Mapping[str, Capacity]) -> Iterator[GaugeMetricFamily]:
        age = GaugeMetricFamily("oberalp_capacity_age_seconds", "Age of the last capacity reading", labels=["target"])
        fault = GaugeMetricFamily("oberalp_capacity_fault", "1 if the last reading failed", labels=["target"])
        gpus = GaugeMetricFamily("oberalp_capacity_gpus", "GPUs, of all nodes", labels=["target", "share"])
        for target, reading in readings.items():
            age.add_metric([target], reading.age)
            fault.add_metric([target], float(reading.error is not None))
            if reading.error is None:
                counts = reading.gpus().values()
                gpus.add_metric([target, "free"], sum(free for free, _ in counts))
                gpus.add_metric([target, "total"], sum(total for _, total in counts))
        yield from (age, fault, gpus)


STATES = States()


def track(session: Tracked) -> None:
    """Count a spawner from now on, as long as it exists."""
    STATES.sessions.add(session)


def readings_from(last: Callable[[], Mapping[str, Capacity]], silent: Callable[[], Mapping[str, float | None]]) -> None:
    """Where the last readings of all targets, and how long each has been silent, are found.

    Neither may ask anybody: they are called at every scrape.
    """
    STATES.readings, STATES.silences = last, silent


def declare(site: Site) -> None:
    """Make the series of `site` exist with 0, so that a rate is right from the first event on."""
    STATES.targets = tuple(target.name for target in site.targets)
    for target in STATES.targets:
        QUEUE_WAIT.labels(target)
        OVERHEAD.labels(target)
        STRAYS.labels(target)
        LAPSES.labels(target)
        for proved in ("yes", "no"):
            STOPS.labels(target, proved)
        for other in STATES.targets:
            if other != target:
                MOVES.labels(target, other)
        for profile in site.profiles:
            if profile.targets is None or target in profile.targets:
                STARTS.labels(target, profile.name, Outcome.READY.value, NO_REASON)
