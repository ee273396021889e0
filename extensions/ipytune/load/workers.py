"""The measuring processes as their controller sees them: started, spoken to, ended; and how many of them a step needs.

A process each, not a thread: the notebook's kernel, its panels and its garbage would take time from the measurement.
Not `multiprocessing`: it would import the caller's script again, and fail in one without a __main__ guard.
"""

from __future__ import annotations

import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from ipytune.load.plan import Load, Plan

# Half of what one process was measured to record: above that the client's own delays begin to show.
TOKENS_PER_PROCESS = 10_000.0
_USUAL_STREAM = 60.0  # tokens/s that one answer comes with, before any was measured
_END_SECONDS = 5.0


class WorkerLost(RuntimeError):
    """A measuring process ended by itself."""


def processes_for(plan: Plan, load: Load, cores: int, tokens_per_user: float | None = None) -> int:
    """How many processes this step takes. Pure.

    tokens_per_user: tokens per second that a user got in the step before; None before there was one.
    """
    if plan.processes != "auto":
        wanted = plan.processes
    else:
        if load.kind == "closed":
            expected = load.value * (tokens_per_user or _USUAL_STREAM)
        else:
            expected = load.value * plan.output_tokens
        # One core is left to the rest of the session, the server perhaps.
        wanted = min(math.ceil(expected / TOKENS_PER_PROCESS), max(cores - 1, 1))
    return max(1, min(wanted, int(load.value) if load.kind == "closed" else wanted))


class Workers:
    """`messages` holds (number of the worker, message) as they come; None as a message: that worker is gone."""

    def __init__(self) -> None:
        self.messages: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._processes: list[subprocess.Popen[str]] = []
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115

    def need(self, count: int) -> None:
        """At least so many are there; those that are stay."""
        while len(self._processes) < count:
            number = len(self._processes)
            process = subprocess.Popen(
                [sys.executable, "-m", "ipytune.load.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                encoding="utf-8",
                env=_environment(),
                start_new_session=True,  # a Ctrl-C is for the controller, which ends the step and keeps its records
            )
            self._processes.append(process)
            threading.Thread(target=self._read, args=(number, process), name="load-worker", daemon=True).start()

    def tell(self, number: int, message: dict[str, Any]) -> None:
        """Raises WorkerLost."""
        stdin = self._processes[number].stdin
        try:
            if stdin is None:
                raise BrokenPipeError
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
        except (OSError, ValueError):
            raise self.lost() from None

    def lost(self) -> WorkerLost:
        """The error that tells of a worker's end, with its last words."""
        self._errors.flush()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        words = f" Its last words: {said[-1][:300]}" if said else ""
        return WorkerLost(f"A process of the load measurement ended by itself.{words}")

    def close(self) -> None:
        """They end when their input does; one that does not is killed."""
        for process in self._processes:
            if process.stdin is not None:
                try:
                    process.stdin.close()
                except OSError:
                    pass
        for process in self._processes:
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._processes.clear()
        self._errors.close()

    def _read(self, number: int, process: subprocess.Popen[str]) -> None:
        try:
            for line in process.stdout or ():
                self.messages.put((number, json.loads(line)))
        except ValueError:
            pass  # half a line of a process that was killed, or close() at the same time
        self.messages.put((number, None))


def _environment() -> dict[str, str]:
    """This package's own place first: a kernel may have it from a path that its children do not."""
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
