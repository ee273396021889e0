"""What Slurm says of one job, as data, and what that means. Pure; formats as in the squeue and sacct manuals."""

from __future__ import annotations

import re
from dataclasses import dataclass

SQUEUE_FORMAT = "%T|%r"
SACCT_FORMAT = "State,ExitCode"

SILENT = "SILENT"
"""Our word: Slurm did not answer. Nothing is known, so the job counts as alive."""
FORGOTTEN = "FORGOTTEN"
"""Our word: neither the queue nor accounting knows the job (any more)."""

_ENDED = {
    "BOOT_FAIL": "was lost: its node did not boot",
    "CANCELLED": "was cancelled",
    "COMPLETED": "ended without a last word",
    "DEADLINE": "was ended at its deadline",
    "FAILED": "failed",
    "NODE_FAIL": "was lost with its node",
    "OUT_OF_MEMORY": "ran out of memory (lower row_tokens, or ask for more memory_per_node)",
    "PREEMPTED": "was preempted by another job",
    "REVOKED": "was revoked",
    "TIMEOUT": "reached its walltime",
    FORGOTTEN: "is no longer known to Slurm",
}


@dataclass(frozen=True)
class JobState:
    """state: Slurm's long word, or one of ours. reason: why it waits. exit_code: as a shell counts it."""

    state: str
    reason: str = ""
    exit_code: int | None = None

    @property
    def alive(self) -> bool:
        return self.state not in _ENDED

    @property
    def waiting(self) -> bool:
        return self.state in {"PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"}

    @property
    def clean(self) -> bool:
        """Ended as it should: then the trainer said so, and its last word may still be on its way to us."""
        return self.state == "COMPLETED"

    def ending(self) -> str:
        how = _ENDED.get(self.state, f"is {self.state}")
        return how if self.state != "FAILED" or not self.exit_code else f"{how} with exit code {self.exit_code}"

    def words(self) -> str:
        if self.waiting:
            return f"waiting: {self.reason}" if self.reason else "waiting"
        return {SILENT: "Slurm does not answer", FORGOTTEN: "no longer known"}.get(self.state, self.state.lower())


def job_id(output: str) -> str:
    """The number that `sbatch --parsable` printed (`id` or `id;cluster`, last line); ValueError if there is none."""
    last = output.strip().splitlines()[-1] if output.strip() else ""
    found = last.split(";")[0].strip()
    if not (found.isdecimal() and found.isascii()):
        raise ValueError(f"sbatch printed no job number: {output.strip()[:200]!r}")
    return found


def squeue(code: int, output: str, error: str) -> JobState | None:
    """From `squeue --noheader --states=all --jobs=ID --format=SQUEUE_FORMAT`; None when the queue has no such job."""
    if code != 0:
        return None if "Invalid job id" in error else JobState(SILENT)
    for line in output.splitlines():
        state, bar, reason = line.strip().partition("|")
        if bar and state:
            return JobState(state, "" if reason in {"None", ""} else reason)
    return None


def sacct(code: int, output: str) -> JobState:
    """From `sacct --allocations --parsable2 --noheader --format=SACCT_FORMAT --jobs=ID`, asked once the queue knows the
    job no more; a cluster without accounting fails here, and the job is forgotten all the same."""
    lines = [line.split("|") for line in output.splitlines() if line.count("|") == 1] if code == 0 else []
    if not lines:
        return JobState(FORGOTTEN)
    state, exit_code = lines[-1]
    return JobState(state.split()[0] if state.strip() else FORGOTTEN, exit_code=_exit_code(exit_code))


def cluster_name(config: str) -> str | None:
    """From `scontrol show config`."""
    found = re.search(r"^ClusterName\s*=\s*(\S+)", config, re.MULTILINE)
    return found[1] if found else None


def _exit_code(text: str) -> int | None:
    """Slurm's `code:signal`: the code, or 128 + signal."""
    found = re.fullmatch(r"(\d+):(\d+)", text.strip())
    if found is None:
        return None
    return 128 + int(found[2]) if int(found[2]) else int(found[1])
