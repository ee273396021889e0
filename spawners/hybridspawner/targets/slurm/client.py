"""What HybridSpawner needs of a Slurm cluster, whatever the transport (local commands; REST, FirecREST later).

Every method either answers or raises: `SlurmUnavailable` when the controller cannot be asked (so nothing is known),
`SubmitRefused` when it said no. An answer that does not mention a job means that the controller does not know it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from ...capacity import NodeCapacity

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


class SubmitRefused(SlurmError):
    """sbatch refused the job."""


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
    """What Slurm says of one job. `host` is the batch host; `start` as squeue prints it ("N/A" when there is none)."""

    job_id: str
    state: str
    host: str = ""
    start: str = "N/A"
    reason: str = ""
    exit_code: int | None = None

    @property
    def pending(self) -> bool:
        return self.state in PENDING

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class SlurmClient(Protocol):
    """One cluster."""

    async def submit(self, job: Submission) -> str:
        """Submit and return the job id."""
        ...

    async def cancel(self, job_id: str, user: str) -> None:
        """Ask for the end of a job; no proof that it has ended. A job that is unknown or ended is no error."""
        ...

    async def jobs(self, ids: Collection[str]) -> dict[str, JobReading]:
        """Readings of those of `ids` that the controller knows: one request, whatever their number."""
        ...

    async def find(self, mark: str, user: str) -> str | None:
        """The id of the job submitted with `mark`, or None if there is none."""
        ...

    async def finished(self, job_id: str) -> JobReading | None:
        """What the controller, else accounting, says of a job that squeue lists no more; None if neither knows it."""
        ...

    async def nodes(self) -> tuple[NodeCapacity, ...]:
        """All nodes, with what is free on them."""
        ...

    async def tail(self, path: str, user: str, lines: int) -> str:
        """The last lines of a job's log; empty if it cannot be read."""
        ...
