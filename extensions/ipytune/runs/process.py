"""A run in a process of its own: started, found again, followed, stopped.

The process leads its own session, so a restart of the kernel, a reload of the page or a restart of the hub does not end
it; whoever knows the directory can follow it. A process that vanished without a last word is reported as an error.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from ipytune import openmp
from ipytune.lora.config import RunConfig
from ipytune.runs.directory import STOP, Process, RunDirectory
from ipytune.runs.status import Phase, Status

POLL_SECONDS = 0.2
STARTING_SECONDS = 30.0  # from the directory's creation to the process's record; a fork takes milliseconds


class RunFailed(RuntimeError):
    """A run that ended in an error: what failed, why, and the last lines of its log."""

    def __init__(self, what: str, why: str, log_tail: str) -> None:
        super().__init__(f"{what}: {why}" + (f"\n\nLast lines of the log:\n{log_tail}" if log_tail else ""))
        self.what, self.why, self.log_tail = what, why, log_tail


class Run:
    """The handle of one run. Holds no state but the directory; two handles of one run agree."""

    def __init__(self, directory: RunDirectory, child: subprocess.Popen[bytes] | None = None) -> None:
        self._directory = directory
        self._child = child

    @classmethod
    def start(cls, config: RunConfig, run_dir: Path | str, resume: bool = False) -> Run:
        """Starts training in a process of its own and returns at once.

        resume continues a run that stopped, failed or was killed, from its last checkpoint; a completed run is
        returned as it is. Raises ValueError when the directory holds a run and resume is False, when the run is still
        training, or when `config` would train something else; ConfigError when a data file is missing or has changed.
        """
        directory = RunDirectory(run_dir)
        pinned = config.pinned()
        if directory.exists:
            run = cls(directory)
            if not resume:
                raise ValueError(
                    f"{directory.path} already holds a run ({run.status().phase}). Follow it with Run.open(...), "
                    f"continue it with Run.start(..., resume=True), or choose another directory."
                )
            return run._resume(pinned)
        directory.create(pinned.model_copy(update={"versions": versions()}).as_yaml())
        return cls._launch(directory)

    @classmethod
    def open(cls, run_dir: Path | str) -> Run:
        """The handle of a run that exists, whoever started it; raises FileNotFoundError otherwise."""
        directory = RunDirectory(run_dir)
        if not directory.exists:
            raise FileNotFoundError(
                f"{directory.path} holds no run (no config.yaml). Start one there with Run.start(config, run_dir)."
            )
        return cls(directory)

    def _resume(self, config: RunConfig) -> Run:
        status = self.status()
        if not status.phase.final:
            raise ValueError(f"{self.path} is still {status.phase} (pid {status.pid}). Follow it with Run.open(...).")
        if changed := self.config.differences(config):
            listed = ", ".join(f"{name} (was {ours!r}, now {theirs!r})" for name, (ours, theirs) in changed.items())
            raise ValueError(
                f"{self.path} cannot be continued with another configuration: {listed}. Use Run.open(...).config, "
                f"or start a new run in another directory."
            )
        if status.phase is Phase.COMPLETED and self.report().get("ended_by") == "steps":
            return self
        self._directory.done(STOP)
        self._directory.create(config.model_copy(update={"versions": versions()}).as_yaml())
        return self._launch(self._directory)

    @classmethod
    def _launch(cls, directory: RunDirectory) -> Run:
        directory.process.unlink(missing_ok=True)
        directory.write_status(Status(phase=Phase.IDLE, host=socket.gethostname()))
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        openmp.spin_briefly(environment)
        with directory.log.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "ipytune.lora.train", str(directory.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        directory.write_process(identify(child.pid))
        return cls(directory, child)

    @property
    def path(self) -> Path:
        return self._directory.path

    @property
    def adapter(self) -> Path:
        """Where the adapter is, or will be: PEFT's format."""
        return self._directory.adapter

    @property
    def config(self) -> RunConfig:
        return RunConfig.from_yaml(self._directory.config)

    def status(self) -> Status:
        """What the run last said, corrected when its process is gone without a last word."""
        status = self._directory.read_status()
        if status.phase.final or not self._vanished(status):
            return status
        status = self._directory.read_status()  # it may have ended properly between the two readings
        if status.phase.final:
            return status
        return status.model_copy(update={"phase": Phase.ERROR, "error": self._reason_of_death(status)})

    def events(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Records of events.jsonl from byte `offset` on, and the offset to pass next time."""
        return self._directory.read_events(offset)

    def report(self) -> dict[str, Any]:
        """The result of a run that ended; raises FileNotFoundError before."""
        return self._directory.read_report()

    def stop(self) -> None:
        """Asks the run to stop after the step it is at; it writes a checkpoint and the adapter first."""
        if not self.status().phase.final:
            self._directory.ask(STOP)

    def wait(self, timeout: float | None = None, on_status: Callable[[Status], None] | None = None) -> dict[str, Any]:
        """Waits for the end and returns the report; calls on_status at each change.

        Raises RunFailed when the run failed, TimeoutError after `timeout` seconds (the run goes on). An interrupt
        stops the run, which keeps what it learned, and is raised again.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        seen: Status | None = None
        try:
            while True:
                status = self.status()
                if on_status is not None and status != seen:
                    on_status(status)
                seen = status
                if status.phase is Phase.ERROR:
                    raise RunFailed(
                        f"Fine-tuning in {self.path} failed", status.error or "no reason given", self.log_tail()
                    )
                if status.phase.final:
                    return self.report()
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(
                        f"The run in {self.path} is still {status.phase} after {timeout:g} s, at step {status.step}. "
                        f"It goes on; wait again, or stop() it."
                    )
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            self.stop()
            raise

    def log_tail(self, n: int = 30) -> str:
        return self._directory.log_tail(n)

    def _vanished(self, status: Status) -> bool:
        if self._child is not None:  # the parent knows best, and reaps it by asking
            return self._child.poll() is not None
        process = self._directory.read_process()
        if process is None:
            age = time.time() - status.updated_at.timestamp()
            return age > STARTING_SECONDS
        return not alive(process)

    def _reason_of_death(self, status: Status) -> str:
        code = self._child.poll() if self._child is not None else None
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += " (most often: out of memory; lower row_tokens or ask for more)"
        elif code is not None:
            how = f"exited with code {code}"
        else:
            how = "is gone"
        tail = self._directory.log_tail(5)
        return (
            f"the training process {how} while {status.phase}, at step {status.step}. Continue from its last "
            f"checkpoint with resume." + (f" It last printed:\n{tail}" if tail else "")
        )


def identify(pid: int) -> Process:
    return Process(pid=pid, host=socket.gethostname(), started=_started(pid))


def alive(process: Process) -> bool:
    """Whether the process still runs. One on another host is believed alive: its status says when it last spoke."""
    if process.host != socket.gethostname():
        return True
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    if process.started is None:
        return True
    return _started(process.pid) == process.started


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (proc(5), stat field 22); None for a zombie or where there
    is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def versions() -> dict[str, str]:
    """Of everything that decides what is learned."""
    names = ("ipytune", "torch", "transformers", "peft", "tokenizers")
    return {"python": ".".join(map(str, sys.version_info[:3])), **{name: metadata.version(name) for name in names}}
