"""The writing side of a run directory: the training process says here what it does, and nowhere else."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from ipytune.runs.directory import CHECKPOINT_NOW, STOP, RunDirectory
from ipytune.runs.status import Phase, Status


class Recorder:
    """Keeps status.json and events.jsonl in step with each other.

    Of several processes of one run only one writes; the others' recorders are made with writes=False and do nothing.
    """

    def __init__(self, directory: RunDirectory, writes: bool = True) -> None:
        self._directory = directory
        self._writes = writes
        self.status = Status(pid=os.getpid(), host=socket.gethostname())
        self.listener: Callable[[str, Mapping[str, Any]], None] = lambda kind, fields: None
        """Told of each event as it is written, and of `end` after the run's last word; see `ipytune.runs.track`."""

    def phase(self, phase: Phase, **changes: Any) -> None:
        """Enters a phase."""
        self._update(phase=phase, **changes)
        why = {} if self.status.ended_by is None else {"ended_by": self.status.ended_by}
        self.event("phase", phase=str(phase), time=self.status.updated_at.isoformat(), **why)

    def step(self, elapsed_seconds: float, record: bool, **changes: Any) -> None:
        """After an optimiser step; `record` adds it to the curve, first: whoever sees a step finds it there."""
        self._change(**changes)
        if record:
            self.event(
                "metric",
                step=self.status.step,
                loss=self.status.loss,
                learning_rate=self.status.learning_rate,
                tokens=self.status.tokens,
                tokens_per_second=self.status.tokens_per_second,
                elapsed_seconds=round(elapsed_seconds, 3),
            )
        self._write()

    def event(self, kind: str, **fields: Any) -> None:
        if self._writes:
            self._directory.append_event(kind, **fields)
            self.listener(kind, fields)

    def update(self, **changes: Any) -> None:
        self._update(**changes)

    def end(self, phase: Phase, report: dict[str, Any]) -> None:
        """The report first: whoever sees a final phase may read it."""
        if self._writes:
            self._directory.write_report(report)
        self.phase(phase, ended_by=report.get("ended_by"), estimatedRemainingSeconds=0.0)
        if self._writes:
            for request in (STOP, CHECKPOINT_NOW):
                self._directory.done(request)
            self.listener("end", {"phase": str(phase)})

    def fail(self, why: str) -> None:
        self.phase(Phase.ERROR, error=why, estimatedRemainingSeconds=None)
        if self._writes:
            self.listener("end", {"phase": str(Phase.ERROR)})

    def _update(self, **changes: Any) -> None:
        self._change(**changes)
        self._write()

    def _change(self, **changes: Any) -> None:
        self.status = self.status.model_copy(update={"updated_at": datetime.now(timezone.utc), **changes})

    def _write(self) -> None:
        if self._writes:
            self._directory.write_status(self.status)
