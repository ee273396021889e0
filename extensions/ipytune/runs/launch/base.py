"""What every launcher promises, and what it leaves behind: `launch/launched.json` in the run directory.

The run directory, on storage that both sides see, is the whole contract: the trainer writes its status there whoever
started it, and reads there that it shall stop. A launcher adds three things: it starts the trainer, it knows whether
that still lives, and it can end it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ipytune.runs.directory import STOP, RunDirectory, replace_text

POLL_SECONDS = 0.2


class LaunchError(RuntimeError):
    """A run that could not be started; the message says what was asked, what was answered, and what to do."""


class InSlurm(BaseModel):
    """A batch job. Job numbers repeat on other clusters, so the cluster's name belongs to it."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["slurm"] = "slurm"
    job: Annotated[str, Field(pattern=r"^[0-9]+$")]
    cluster: str | None = None


class InKubernetes(BaseModel):
    model_config = ConfigDict(frozen=True)

    kind: Literal["kubernetes"] = "kubernetes"
    job: str
    namespace: str


Launched = Annotated[InSlurm | InKubernetes, Field(discriminator="kind")]
_ANY: TypeAdapter[InSlurm | InKubernetes] = TypeAdapter(Launched)


class Handle(Protocol):
    """The other end of a started run. Questions are cheap: those to a scheduler are asked rarely."""

    def alive(self) -> bool:
        """Whether the trainer still runs or waits in a queue. What cannot be known from here counts as alive."""

    def silent(self) -> bool:
        """Whether nothing can be learned of it from here: then alive() is True, and its status is all there is."""

    def ending(self) -> str:
        """How it ended, as the words after its name: `was killed by SIGKILL (...)`. Only once alive() is False."""

    def withdraw(self) -> None:
        """Takes it out of the queue when it has not begun; else nothing."""

    def stop(self, grace: float) -> None:
        """Ends it, and returns when it has ended. It is asked first, so that it keeps what it learned; after `grace`
        seconds it is ended by force."""

    def describe(self) -> str:
        """Who runs it: `process 4711 on nid000001`, `Slurm job 12 (waiting: Priority)`."""


class Launcher(Protocol):
    """A way to run `python -m ipytune.lora.train RUN_DIR`. The trainer continues from checkpoints by itself, so a
    first start and a continuation are the same here."""

    def start(self, directory: RunDirectory) -> Handle:
        """Starts it and returns at once; raises LaunchError when it was refused, leaving nothing running."""


def launch_folder(directory: RunDirectory) -> Path:
    """Where a launcher keeps its record and the script or manifest that it submitted."""
    return directory.path / "launch"


def read_launched(directory: RunDirectory) -> InSlurm | InKubernetes | None:
    """Which job runs it; None for a process that was started without a scheduler."""
    try:
        return _ANY.validate_json((launch_folder(directory) / "launched.json").read_bytes())
    except (OSError, ValidationError):
        return None


def write_launched(directory: RunDirectory, launched: InSlurm | InKubernetes | None) -> None:
    """Written by the launcher, and once more from inside the job: whichever of the two dies, the job is known."""
    folder = launch_folder(directory)
    if launched is None:
        (folder / "launched.json").unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "launched.json", launched.model_dump_json(indent=1))


WALLTIME = "walltime"
"""What a job script writes into the request to stop: then the run says that this is why it ended."""


def stop_reason(directory: RunDirectory) -> str | None:
    """`stop` or `walltime` when the run has been asked to stop, else None."""
    try:
        return WALLTIME if (directory.control / STOP).read_bytes().strip() == WALLTIME.encode() else STOP
    except OSError:
        return None


def ask_to_stop(directory: RunDirectory, gone: Callable[[], bool], grace: float) -> bool:
    """Asks in the run directory and waits up to `grace` seconds; True once `gone` says so."""
    directory.ask(STOP)
    deadline = time.monotonic() + grace
    while not gone():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


class SignsOfLife:
    """Says when a scheduler is worth a question: at most once an `interval`, and not while the run speaks itself.

    A status file that changed since the last look proves life and costs a scheduler nothing.
    """

    def __init__(self, directory: RunDirectory, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = directory.status
        self._interval = interval
        self._clock = clock
        self._seen = self._stamp()
        self._quiet_since: float | None = None  # None: never asked, so the first question is due at once

    def question_due(self) -> bool:
        stamp, now = self._stamp(), self._clock()
        if stamp != self._seen:
            self._seen, self._quiet_since = stamp, now
            return False
        if self._quiet_since is not None and now - self._quiet_since < self._interval:
            return False
        self._quiet_since = now
        return True

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino
