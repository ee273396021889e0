"""The directory of one batch: all that its jobs and its readers know of it.

    batch.json            what was asked for: the notebook with its checksum, the sets, who runs them, every submission
    notebook.ipynb        a copy: changing the original changes nothing here
    jobs/MARK/            what a submission gave the scheduler, and what its workers printed
    000/parameters.yaml   the parameters of the first set
    000/status.json       what its worker last said
    000/out.ipynb         the notebook with its outputs so far
    000/log               what running it printed
    000/results/          its OUT_DIR, unless another was given: metrics.json and the rest

Guarantees
- A directory counts as a batch once it holds `batch.json`; it comes into being whole.
- Every JSON file is replaced atomically. `batch.json` is written by who submits and cancels, one at a time (`locked`);
  `status.json` by the one worker that claimed the set.
- A set is claimed once in a submission: the file of the claim can be made only once, on network storage too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ipytune.batch.parameters import as_yaml
from ipytune.runs.directory import Process, replace_text
from ipytune.runs.launch.base import InKubernetes, InSlurm, Launched
from ipytune.runs.launch.pids import alive, identify
from ipytune.runs.launch.settings import KubernetesSettings, SlurmSettings


class State(str, Enum):
    """Of one set."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    OUT_OF_TIME = "out of time"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self not in {State.QUEUED, State.RUNNING}


class BatchError(RuntimeError):
    """A batch that could not be made, read, submitted or cancelled; the message says why, and what to do."""


class SetStatus(BaseModel):
    """What the worker of a set last said."""

    model_config = ConfigDict(frozen=True)

    submission: str
    state: State
    job: Launched | None = None
    """The job that its worker is in; None in a session."""
    process: Process
    """Its worker."""
    started_at: datetime
    ended_at: datetime | None = None
    error: str | None = None
    """One line."""

    @property
    def seconds(self) -> float:
        return ((self.ended_at or datetime.now(timezone.utc)) - self.started_at).total_seconds()


class Submission(BaseModel):
    """One time that sets were given to somebody to run. Written down before, and again with what was answered."""

    model_config = ConfigDict(frozen=True)

    mark: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] = Field(default_factory=lambda: secrets.token_hex(4))
    at: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))
    sets: tuple[int, ...]
    slurm: InSlurm | None = None
    """The array; None: not known (yet)."""
    kubernetes: tuple[InKubernetes, ...] = ()
    workers: int = 0
    """Processes of a session."""
    cancelled: bool = False


class Batch(BaseModel):
    """What was asked for, and what was made of it."""

    model_config = ConfigDict(frozen=True)

    notebook: str
    """Where it came from."""
    sha256: str
    cwd: str
    """Relative paths in parameters and notebook mean the same as there."""
    on: Literal["session", "slurm", "kubernetes"]
    slurm: SlurmSettings | None = None
    kubernetes: KubernetesSettings | None = None
    at_once: Annotated[int, Field(ge=1)] | None = None
    sets: tuple[dict[str, Any], ...]
    submissions: tuple[Submission, ...] = ()

    def last_submission(self, number: int) -> Submission | None:
        """The one that a set was last in."""
        return next((submission for submission in reversed(self.submissions) if number in submission.sets), None)

    def with_submission(self, submission: Submission) -> Batch:
        """With this one added, or in the place of the one with its mark: their order says which came last."""
        known = {one.mark: one for one in self.submissions}
        known[submission.mark] = submission
        return self.model_copy(update={"submissions": tuple(known.values())})


class SetDirectory:
    """The files of one set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parameters = path / "parameters.yaml"
        self.status = path / "status.json"
        self.output = path / "out.ipynb"
        self.log = path / "log"
        self.results = path / "results"
        self.stop = path / "stop"

    def claim(self, mark: str) -> bool:
        """True for one of all workers of a submission."""
        try:
            (self.path / f"claim-{mark}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def read_status(self) -> SetStatus | None:
        try:
            return SetStatus.model_validate_json(self.status.read_bytes())
        except (OSError, ValidationError):
            return None

    def write_status(self, status: SetStatus) -> None:
        replace_text(self.status, status.model_dump_json(indent=1))

    def ask_to_stop(self, why: State) -> None:
        replace_text(self.stop, why.value)

    def asked_to_stop(self) -> State | None:
        """Why it shall stop, else None. A job script writes the reason too."""
        try:
            why = self.stop.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        return State.OUT_OF_TIME if why == State.OUT_OF_TIME.value else State.CANCELLED

    def log_tail(self) -> str:
        """The last line that says something; reads at most the last 16 KiB."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 16384))
                lines = file.read().decode("utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class BatchDirectory:
    """Reads and writes the files of a batch."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser().absolute()
        self.file = self.path / "batch.json"
        self.notebook = self.path / "notebook.ipynb"

    def read(self) -> Batch:
        """Raises BatchError when there is none, or its notebook is another than the one that was submitted."""
        try:
            batch = Batch.model_validate_json(self.file.read_bytes())
            changed = hashlib.sha256(self.notebook.read_bytes()).hexdigest() != batch.sha256
        except FileNotFoundError as error:
            raise BatchError(f"{self.path} holds no batch (no {Path(error.filename).name}).") from error
        except ValidationError as error:
            raise BatchError(f"{self.file} cannot be read: {error.errors()[0]['msg']}.") from error
        if changed:
            raise BatchError(f"{self.notebook} was changed: the sets would not be comparable. Make a new batch of it.")
        return batch

    def write(self, batch: Batch) -> None:
        replace_text(self.file, batch.model_dump_json(indent=1))

    def set(self, number: int, count: int) -> SetDirectory:
        return SetDirectory(self.path / set_name(number, count))

    def sets(self, batch: Batch) -> list[SetDirectory]:
        return [self.set(number, len(batch.sets)) for number in range(len(batch.sets))]

    def jobs(self, mark: str) -> Path:
        """Where a submission keeps its script or manifests, and its workers their logs."""
        return self.path / "jobs" / mark

    def process_file(self, mark: str, worker: int) -> Path:
        return self.jobs(mark) / f"{worker}.process.json"

    def read_process(self, mark: str, worker: int) -> Process | None:
        try:
            return Process.model_validate_json(self.process_file(mark, worker).read_bytes())
        except (OSError, ValidationError):
            return None

    def write_process(self, mark: str, worker: int, process: Process) -> None:
        self.process_file(mark, worker).parent.mkdir(parents=True, exist_ok=True)
        replace_text(self.process_file(mark, worker), process.model_dump_json())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time submits or cancels; BatchError for the second. A dead process's lock is taken over."""
        self.read()  # says better than a lock that cannot be made that there is no batch
        lock = self.path / "locked.json"
        for _ in range(2):
            try:
                with lock.open("x") as file:
                    file.write(identify(os.getpid()).model_dump_json())
                break
            except FileExistsError:
                with contextlib.suppress(OSError, ValidationError):
                    holder = Process.model_validate_json(lock.read_bytes())
                    if holder.host == socket.gethostname() and not alive(holder):
                        lock.unlink(missing_ok=True)
        else:
            raise BatchError(f"{self.path} is being submitted or cancelled just now. If not, delete {lock}.")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def set_name(number: int, count: int) -> str:
    """>>> set_name(7, 12), set_name(7, 1000)
    ('007', '007')
    """
    return f"{number:0{width(count)}d}"


def width(count: int) -> int:
    return max(3, len(str(count - 1)))


def make(directory: BatchDirectory, batch: Batch, notebook: bytes, parameters: Sequence[dict[str, Any]]) -> None:
    """Writes a new batch: beside its place, then renamed. parameters: what each set is run with.

    Raises BatchError when something is there already.
    """
    target = directory.path
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = BatchDirectory(target.with_name(f".{target.name}.{secrets.token_hex(4)}"))
    try:
        beside.path.mkdir()
        beside.notebook.write_bytes(notebook)
        for number, given in enumerate(parameters):
            one = beside.set(number, len(parameters))
            one.path.mkdir()
            one.parameters.write_text(as_yaml(given), encoding="utf-8")
        beside.write(batch)
        beside.path.rename(target)  # refused by the system unless there is nothing, or an empty directory
    except OSError as error:
        shutil.rmtree(beside.path, ignore_errors=True)
        if target.exists():
            raise BatchError(
                f"{target} is there already. Go on with it: ipytune submit --resume {target}. Or name another --dir."
            ) from error
        raise BatchError(f"{target} cannot be written: {error}") from error
