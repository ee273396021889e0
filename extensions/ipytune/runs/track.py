"""Trackers: the curves of a run also go to TensorBoard or MLflow, from the training process.

Guarantees
- Training never waits for a tracker: what it is told goes into a bounded queue, and a thread of its own passes it on.
- A tracker that fails is a warning in events.jsonl, once for each time it goes away; training goes on, and so does the
  tracker when its server is back.
- At the end, when all of the run's own files are written, what is left is passed on within CLOSE_SECONDS, or given up
  with a warning.
- A continued run goes on in the same curves; steps that are done again appear once.
- Addresses and keys stay in the environment: no file of ours and no warning holds them.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from ipytune.lora.config import ConfigError, RunConfig
from ipytune.runs.directory import RunDirectory
from ipytune.runs.status import Phase

QUEUE = 10_000  # records that wait for a tracker: hours of steps, a few megabytes
RETRY_SECONDS = 30.0
CLOSE_SECONDS = 10.0  # a batch system that ends a job leaves 30 s or more

METRICS = ("loss", "learning_rate", "tokens", "tokens_per_second")
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}
_SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|KEY|CREDENTIAL", re.IGNORECASE)


class Tracker(Protocol):
    """Where curves go. All methods are called from one thread, in this order; each may raise, and `start` and `flush`
    are then called again later."""

    name: str

    def start(self, config: RunConfig, resumed_at: int | None) -> None:
        """Opens the run there, or goes on in it; resumed_at: the step of the checkpoint."""

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes metrics in; may keep them until `flush`."""

    def flush(self) -> None:
        """Passes on what was kept; keeps it when that fails."""

    def finish(self, phase: Phase) -> None:
        """Passes on what was kept, and closes the run there: how this process of the run ended."""


def require(track: Sequence[str]) -> None:
    """Raises ConfigError when a tracker's package is missing. Quick: imports nothing."""
    for name in track:
        if find_spec(_PACKAGES[name]) is None:
            raise ConfigError(
                f"track: {name} needs the package {_PACKAGES[name]}, which is not installed. Install it with "
                f"`pip install 'ipytune[track]'`, or leave {name} out of track."
            )
    if "mlflow" in track and not os.environ.get("MLFLOW_TRACKING_URI") and find_spec("sqlalchemy") is None:
        raise ConfigError(
            "track: mlflow has no address. Set MLFLOW_TRACKING_URI to your server before the run starts, or install "
            "`mlflow` itself, which then keeps a database beside your runs."
        )


def tracking(
    config: RunConfig, directory: RunDirectory, warn: Callable[[str], None]
) -> Callable[[str, Mapping[str, Any]], None]:
    """What the recorder of a run tells its events to; see `Tracking.take`. Raises ConfigError as `require` does.

    Imports the trackers' packages, which may take seconds: before training, so that no step waits for an import.
    """
    from ipytune.runs.trackers import MLflow, TensorBoard

    require(config.track)
    made: dict[str, Callable[[RunDirectory], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
    return Tracking([made[name](directory) for name in config.track], config, warn).take


class Tracking:
    """Hands the events of one training process to its trackers. Its methods are for the training thread only."""

    def __init__(self, trackers: Sequence[Tracker], config: RunConfig, warn: Callable[[str], None]) -> None:
        self._feeds = [_Feed(tracker, config) for tracker in trackers]
        self._warn = warn
        self._resumed_at: int | None = None

    def take(self, kind: str, fields: Mapping[str, Any]) -> None:
        """An event as it is written to events.jsonl, or `end` with the final phase, once the run's own record is
        complete. Returns at once, except for `end`: within CLOSE_SECONDS."""
        if kind == "resumed":
            self._resumed_at = fields["step"]
        elif kind == "phase" and fields["phase"] == Phase.TRAINING:
            for feed in self._feeds:
                feed.start(self._resumed_at)
        elif kind in {"metric", "evaluation"}:
            metrics = _numbers(fields, METRICS if kind == "metric" else ("eval_loss",))
            for feed in self._feeds:
                feed.record(fields["step"], metrics)
        elif kind == "end":
            self._close(Phase(fields["phase"]))
        self._tell()

    def _close(self, phase: Phase) -> None:
        for feed in self._feeds:
            feed.finish(phase)
        deadline = time.monotonic() + CLOSE_SECONDS
        for feed in self._feeds:
            feed.wait(max(0.0, deadline - time.monotonic()))

    def _tell(self) -> None:
        """Warnings are written here, by the thread that writes events.jsonl."""
        for feed in self._feeds:
            while not feed.problems.empty():
                self._warn(feed.problems.get())


class _Feed:
    """One tracker, its thread, and what waits for it."""

    def __init__(self, tracker: Tracker, config: RunConfig) -> None:
        self.problems: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._tracker, self._config = tracker, config
        self._waiting: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(QUEUE)
        self._left_out = 0
        self._ended: Phase | None = None
        self._ending = threading.Event()
        self._failing = False
        self._thread: threading.Thread | None = None

    # --- the training thread -----------------------------------------------------------------------------------------

    def start(self, resumed_at: int | None) -> None:
        # A daemon: a server that does not answer must not keep the process from ending.
        name = f"ipytune-{self._tracker.name}"
        self._thread = threading.Thread(target=self._work, args=(resumed_at,), name=name, daemon=True)
        self._thread.start()

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        try:
            self._waiting.put_nowait((step, metrics))
        except queue.Full:
            self._left_out += 1

    def finish(self, phase: Phase) -> None:
        self._ended = phase
        self._ending.set()
        try:
            self._waiting.put_nowait(None)  # wakes the thread; a full queue keeps it awake
        except queue.Full:
            pass

    def wait(self, seconds: float) -> None:
        """For the thread to end; says what did not get through."""
        if self._thread is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive() or self._failing:
            self._note(f"{self._tracker.name} did not take the last records; they are in events.jsonl.")
        if self._left_out:
            self._note(f"{self._tracker.name} was too slow for {self._left_out} records; they are in events.jsonl.")

    # --- the tracker's thread ----------------------------------------------------------------------------------------

    def _work(self, resumed_at: int | None) -> None:
        while not self._try(self._tracker.start, self._config, resumed_at):
            if self._ending.is_set():
                return
            self._ending.wait(RETRY_SECONDS)
        while True:
            if (item := self._waiting.get()) is not None:
                self._try(self._tracker.record, *item)
            if not self._waiting.empty():
                continue
            if self._ended is not None:
                self._try(self._tracker.finish, self._ended)
                return
            if not self._try(self._tracker.flush):
                self._ending.wait(RETRY_SECONDS)

    def _try(self, call: Callable[..., None], *arguments: Any) -> bool:
        try:
            call(*arguments)
        except Exception as error:  # whatever a library or a network does is a warning, never the end of a run
            if not self._failing:
                self._note(f"{self._tracker.name} does not answer: {told(error)}. Training goes on without it.")
            self._failing = True
            return False
        self._failing = False
        return True

    def _note(self, text: str) -> None:
        self.problems.put(text)


def told(error: Exception, environment: Mapping[str, str] = os.environ) -> str:
    """An error in one line that may be written down: without credentials in addresses or from the environment."""
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0][:500]
    text = re.sub(r"(?<=://)[^/@\s]+@", "", text)
    for name, value in environment.items():
        if _SECRET.search(name) and len(value) >= 4:
            text = text.replace(value, "***")
    return text.rstrip(".: ")


def _numbers(fields: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    return {name: float(fields[name]) for name in names if isinstance(fields.get(name), (int, float))}
