"""A run in a process of its own: started, found again, followed, stopped.

Who runs it is a launcher's business (`ipytune.runs.launch`): this session, a batch job, a Kubernetes Job. Whoever knows
the directory can follow it. A process that vanished without a last word is reported as an error.
"""

from __future__ import annotations

import shutil
import socket
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from ipytune.lora.config import RunConfig
from ipytune.runs.directory import STOP, RunDirectory
from ipytune.runs.launch.base import Handle, Launcher, LaunchError, read_launched
from ipytune.runs.launch.pids import alive, identify
from ipytune.runs.launch.reopen import reopen
from ipytune.runs.launch.session import Session
from ipytune.runs.status import Phase, Status
from ipytune.runs.track import require

__all__ = ["Run", "RunFailed", "alive", "identify", "prepare", "versions"]

POLL_SECONDS = 0.2
QUIET_SECONDS = (
    600.0  # of a run that cannot be asked from here, until one may continue it; loading a model takes minutes
)


class RunFailed(RuntimeError):
    """A run that ended in an error: what failed, why, and the last lines of its log."""

    def __init__(self, what: str, why: str, log_tail: str) -> None:
        super().__init__(f"{what}: {why}" + (f"\n\nLast lines of the log:\n{log_tail}" if log_tail else ""))
        self.what, self.why, self.log_tail = what, why, log_tail


class Run:
    """The handle of one run. Holds no state but the directory; two handles of one run agree."""

    def __init__(self, directory: RunDirectory, handle: Handle | None = None) -> None:
        self._directory = directory
        self._handle = handle or reopen(directory)

    def __reduce__(self) -> tuple[Callable[[Path], Run], tuple[Path]]:
        """Pickled as its directory: a notebook that is continued in another kernel has its handles again."""
        return Run.open, (self.path,)

    @classmethod
    def start(
        cls, config: RunConfig, run_dir: Path | str, resume: bool = False, launcher: Launcher | None = None
    ) -> Run:
        """Starts training in a process of its own and returns at once.

        resume continues a run that stopped, failed or was killed, from its last checkpoint; a completed run is
        returned as it is. launcher: who runs it; None: one process of this session. Raises ValueError when the
        directory holds a run and resume is False, when the run is still training, or when `config` would train
        something else; ConfigError when a data file is missing or has changed; LaunchError when it cannot be started.
        """
        directory = RunDirectory(run_dir)
        new, nothing = not directory.exists, not directory.path.exists()
        if not prepare(config, directory, resume):
            return cls(directory)
        try:
            return cls(directory, (launcher or Session()).start(directory))
        except LaunchError as error:
            if nothing:
                shutil.rmtree(directory.path)  # only what was written here just now
            else:
                directory.write_status(Status(phase=Phase.ERROR, error=str(error)))
                if new:
                    directory.config.unlink()  # so that the next try finds no run here
            raise

    @classmethod
    def open(cls, run_dir: Path | str) -> Run:
        """The handle of a run that exists, whoever started it; raises FileNotFoundError otherwise."""
        directory = RunDirectory(run_dir)
        if not directory.exists:
            raise FileNotFoundError(
                f"{directory.path} holds no run (no config.yaml). Start one there with Run.start(config, run_dir)."
            )
        return cls(directory)

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
        if status.phase.final or self._handle.alive():
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
        status = self.status()
        if not status.phase.final:
            self._directory.ask(STOP)
            if status.phase is Phase.IDLE:
                self._handle.withdraw()

    def end(self, grace: float = 60.0) -> None:
        """Ends the run: asks it as stop() does, and after `grace` seconds by force; returns when it has ended."""
        if not self.status().phase.final:
            self._handle.stop(grace)

    def given_up(self) -> bool:
        """Whether the run ended where it cannot be seen from here, as far as ten minutes of silence can tell: on a node
        of a session that is over, or in a job whose scheduler does not answer inside a container."""
        quiet = datetime.now(timezone.utc) - self._directory.read_status().updated_at
        return self._handle.silent() and quiet.total_seconds() > QUIET_SECONDS

    @property
    def runner(self) -> str:
        """Who runs it, in words: a process and its host, a Slurm job, a Kubernetes Job."""
        return self._handle.describe()

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

    def _reason_of_death(self, status: Status) -> str:
        tail = self._directory.log_tail(5)
        who = "the training process" if read_launched(self._directory) is None else self._handle.describe()
        when = "before it began" if status.phase is Phase.IDLE else f"while {status.phase}, at step {status.step}"
        return f"{who} {self._handle.ending()} {when}. Continue from its last checkpoint with resume." + (
            f" It last printed:\n{tail}" if tail else ""
        )


def prepare(config: RunConfig, directory: RunDirectory, resume: bool) -> bool:
    """Makes the run directory of `config`, or readies the one that is there to be continued.

    True when something is left to train; False for a run that is complete. Raises as `Run.start` does.
    """
    require(config.track)
    pinned = config.pinned()
    if directory.exists:
        run = Run(directory)
        status = run.status()
        if not resume:
            raise ValueError(
                f"{directory.path} already holds a run ({status.phase}). Follow it with Run.open(...), "
                f"continue it with Run.start(..., resume=True), or choose another directory."
            )
        if not status.phase.final and not run.given_up():
            raise ValueError(
                f"{directory.path} is still {status.phase} ({run.runner}). Follow it with Run.open(...). If you know "
                f"that it is gone, remove process.json and launch/ there."
            )
        if changed := run.config.differences(pinned):
            listed = ", ".join(f"{name} (was {ours!r}, now {theirs!r})" for name, (ours, theirs) in changed.items())
            raise ValueError(
                f"{directory.path} cannot be continued with another configuration: {listed}. Use Run.open(...).config, "
                f"or start a new run in another directory."
            )
        if status.phase is Phase.COMPLETED and run.report().get("ended_by") == "steps":
            return False
        directory.done(STOP)
    directory.create(pinned.model_copy(update={"versions": versions()}).as_yaml())
    directory.process.unlink(missing_ok=True)
    directory.write_status(Status(phase=Phase.IDLE, host=socket.gethostname()))
    return True


def versions() -> dict[str, str]:
    """Of everything that decides what is learned."""
    names = ("ipytune", "torch", "transformers", "peft", "tokenizers")
    return {"python": ".".join(map(str, sys.version_info[:3])), **{name: metadata.version(name) for name in names}}
