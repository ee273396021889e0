"""What Slurm's error messages mean, whichever way they came: a refusal, an unknown job, or no answer at all.

Slurm's commands and APIs hand on the same strings (slurm_errno); there is nothing better to tell them by.
"""

from __future__ import annotations

from collections.abc import Iterable

NO_ANSWER = (
    "unable to contact slurm controller",
    "socket timed out",
    "connection refused",
    "communication connection failure",
    "zero bytes were transmitted",
    "slurm controller (primary) is in standby",
    "slurm backup controller in standby",
    "protocol authentication error",
    "unable to establish",
    "resource temporarily unavailable",
    "transport endpoint is not connected",
    "insane message length",
    "slurm temporarily unable to accept job",
    "unable to contact slurmdbd",
)
NOT_CONNECTED = ("unable to contact slurm controller (connect failure)",)
"""Of NO_ANSWER, what also means that nothing was handed over (SLURMCTLD_COMMUNICATIONS_CONNECTION_ERROR)."""
UNKNOWN_JOB = ("invalid job id", "job not found")
ENDED_JOB = ("job/step already completing or completed",)
NO_ACCOUNTING = (
    "accounting storage is disabled",
    "sacct cannot be run",
    "slurmdbd is not being used",
    "supported accounting_storage",
)


def says(error: object, phrases: Iterable[str]) -> bool:
    """Whether the text of `error` holds one of `phrases`, whatever the case."""
    text = str(error).lower()
    return any(phrase in text for phrase in phrases)
