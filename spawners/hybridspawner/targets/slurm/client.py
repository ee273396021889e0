"""What HybridSpawner needs of a Slurm cluster, whatever the transport.

Every method either answers or raises: `SlurmUnavailable` when the controller cannot be asked (so nothing is known),
`SubmitRefused` when it said no. An answer that does not mention a job means that the controller does not know it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ...capacity import Access, NodeCapacity

PENDING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)
ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)
"""Job states of the squeue manual (JOB STATE CODES). COMPLETING is neither: the job still holds its nodes."""


class SlurmError(Exception):
    """Slurm answered with an error; the message is its own."""


class SlurmUnavailable(SlurmError):
    """The controller did not answer: nothing is known about any job."""


class SlurmUnreachable(SlurmUnavailable):
    """There was not even a connection: whatever was asked for has not happened."""


class SubmitRefused(SlurmError):
    """sbatch refused the job."""


_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+\\-]{0,127}", re.ASCII)


def account(user: str) -> str:
    """`user` if it can be nothing but the name of an account; SlurmError if not, and for root.

    The authenticator decides what users are called; sudo takes `#0` for root, and programs take `-x` for an option.
    """
    if _ACCOUNT.fullmatch(user) is None or user == "root":
        raise SlurmError(f"{user[:40]!r} is no account that sessions may belong to")
    return user


@dataclass(frozen=True)
class Submission:
    """A job to submit. `environment` becomes the job's environment and may hold secrets; it never enters the script."""

    script: str
    environment: dict[str, str]
    user: str
    mark: str
    directory: str


@dataclass(frozen=True)
class JobReading:
    """What Slurm says of one job. `host` is the batch host; `start` as squeue prints it ("N/A" when there is none).

    `partition` may be a list; `priority` is Slurm's integer, 0 for a held job and where it is not told.
    """

    job_id: str
    state: str
    host: str = ""
    start: str = "N/A"
    reason: str = ""
    exit_code: int | None = None
    partition: str = ""
    priority: int = 0
    user: str = ""

    @property
    def pending(self) -> bool:
        return self.state in PENDING

    @property
    def ended(self) -> bool:
        return self.state in ENDED


OnCall = Callable[[str, float, bool], None]
"""Told of each request to the scheduler: what was asked (`queue`, `submit`, ...), seconds, whether it answered."""


def ignore_call(verb: str, seconds: float, answered: bool) -> None:
    """An `OnCall` for those who do not count."""


@contextmanager
def counted(on_call: OnCall, verb: str) -> Iterator[None]:
    """Report the one request that is made inside. A refusal is an answer; silence and a call given up are not."""
    begun, answered = time.monotonic(), False
    try:
        yield
        answered = True
    except SlurmError as error:
        answered = not isinstance(error, SlurmUnavailable)
        raise
    finally:
        on_call(verb, time.monotonic() - begun, answered)


class SlurmClient(Protocol):
    """One cluster. Methods that look ask for everything at once: their cost does not grow with our sessions."""

    async def submit(self, job: Submission) -> str:
        """Submit and return the job id. Once this has raised SlurmUnavailable, or was given up for longer than
        `submit_patience` seconds, nothing is submitted any more behind the caller's back."""
        ...

    submit_patience: float

    async def cancel(self, job_id: str, user: str) -> None:
        """Ask for the end of a job; no proof that it has ended. A job that is unknown or ended is no error."""
        ...

    async def queue(self) -> dict[str, JobReading]:
        """Every job that the controller knows and shows us, by id, other people's and just ended ones too."""
        ...

    async def marked(self, prefix: str, besides: Container[str] = ()) -> dict[str, JobReading]:
        """Jobs that the controller knows whose mark starts with `prefix` and is not in `besides`, by mark.

        `besides` is looked at only after the jobs have been listed.
        """
        ...

    async def finished(self, ids: Collection[str]) -> dict[str, JobReading]:
        """What accounting (else the controller's record) says of jobs that have left the queue; absent if unknown."""
        ...

    async def nodes(self) -> tuple[NodeCapacity, ...]:
        """All nodes, with what is free on them, and the reservations that hold them."""
        ...

    async def rights(self) -> dict[str, Access]:
        """What every user may use now, by user name: accounts, partitions, QoS, reservations that are active."""
        ...

    async def estimate(self, job: Submission) -> datetime | None:
        """When the scheduler would start this job, were it submitted now (local time of the cluster); None: unknown.
        Raises SubmitRefused if it would be refused."""
        ...

    async def tail(self, path: str, user: str, lines: int) -> str:
        """The last lines of a job's log; empty if it cannot be read."""
        ...

    async def close(self) -> None:
        """Let go of connections; the client may be used again, and makes new ones."""
        ...
