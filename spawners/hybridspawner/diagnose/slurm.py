"""Slurm's words: refusals of sbatch, reasons of waiting, ends of jobs."""

from __future__ import annotations

import re

from ..duration import spoken_duration
from .failure import StartFailed
from .log import SEE_LOG, clue

# (pattern in sbatch's error, why, remedy, reason for metrics): texts of slurm_errno.h
_REFUSALS = (
    (
        "invalid partition|partition.*not (?:valid|found)",
        "The partition does not exist.",
        "Choose another partition.",
        "invalid_partition",
    ),
    (
        "invalid account|account/partition combination",
        "The account does not exist here or is not yours.",
        "Choose another account.",
        "invalid_account",
    ),
    (
        "reservation is invalid|reservation.*(?:access|denied)|requested reservation",
        "The reservation does not exist, has ended, or is not open to you.",
        "Choose another reservation or none.",
        "invalid_reservation",
    ),
    (
        "time limit|requested time",
        "The run time is over the limit of the partition.",
        "Ask for less time.",
        "time_limit",
    ),
    (
        "qos|max.*per.*user|job violates accounting",
        "A limit of your account or quality of service is reached.",
        "Stop another session or job, or ask for less.",
        "limit",
    ),
    (
        "node configuration is not available|more processors|gres|requested node count",
        "The partition has no node that is large enough.",
        "Choose another profile or partition.",
        "no_such_node",
    ),
    (
        "drained|not available|partition.*(?:down|inactive)",
        "The partition takes no jobs at the moment.",
        "Choose another partition or target, or try later.",
        "partition_down",
    ),
)

_QUEUE_REASONS = {
    "Priority": "other jobs are ahead of it",
    "Resources": "it is next, and waits for nodes to become free",
    "Dependency": "it waits for another job",
    "Reservation": "it waits for its reservation to begin",
    "JobHeldUser": "it is held; release it with scontrol release",
    "JobHeldAdmin": "the site holds it; ask its support",
    "QOSMaxJobsPerUserLimit": "you have as many running jobs as you may; stop one of them",
    "AssocGrpGRES": "your project uses all the GPUs that it may",
    "PartitionTimeLimit": "it asks for more time than the partition allows, so it can never start",
    "PartitionDown": "the partition is down",
    "ReqNodeNotAvail": "the nodes that it needs are down or reserved",
    "BeginTime": "its begin time has not come",
    "None": "the scheduler has not looked at it yet",
}

_ENDS = {
    "TIMEOUT": ("The job reached its time limit.", "Ask for more time.", "timeout"),
    "OUT_OF_MEMORY": ("The job used more memory than it has.", "Choose a profile with more memory.", "memory"),
    "NODE_FAIL": ("A node failed.", "Start again; the scheduler avoids the node.", "node_fail"),
    "BOOT_FAIL": ("A node could not be started.", "Start again; the scheduler avoids the node.", "node_fail"),
    "CANCELLED": ("The job was cancelled outside JupyterHub.", "Start again, or ask who cancelled it.", "cancelled"),
    "PREEMPTED": (
        "A job with a higher priority took the nodes.",
        "Start again, or choose another partition.",
        "preempted",
    ),
    "DEADLINE": ("The job's deadline passed.", "Start again.", "deadline"),
}


def queue_words(reason: str, start: str, ahead: int | None = None) -> tuple[str, int, str]:
    """(message, percent, detail) for a queued job: squeue's reason, expected start, how many jobs are before it."""
    words = _QUEUE_REASONS.get(reason.split(",")[0].strip(), reason or "the scheduler has not looked at it yet")
    place = (
        "" if ahead is None else f"; {ahead} job{'' if ahead == 1 else 's'} before it" if ahead else "; it is the next"
    )
    estimate = f"; estimated start {start.replace('T', ' ')}" if re.match(r"\d{4}-", start) else ""
    detail = f"Slurm's reason: {reason}" if reason and reason != words else ""
    return f"In the queue: {words}{place}{estimate}", 20, detail


def refused_submission(words: str) -> StartFailed:
    for pattern, why, remedy, reason in _REFUSALS:
        if re.search(pattern, words, re.IGNORECASE):
            return StartFailed("Slurm refused the job.", why, remedy, words, reason)
    return StartFailed(
        "Slurm refused the job.",
        "Its words are below.",
        "Change the request, or show them to the site's support.",
        words,
        "refused",
    )


def silent_controller(words: str) -> StartFailed:
    why = "Slurm does not answer."
    return StartFailed(
        "The job could not be submitted.",
        why,
        "Try again in some minutes, or choose another target.",
        words,
        "backend_down",
    )


def queue_timeout(waited: float, reason: str, start: str) -> StartFailed:
    words = queue_words(reason, start)[0]
    what = f"The job did not start within {spoken_duration(waited)} and was taken back."
    return StartFailed(
        what, words + ".", "Try a smaller profile, another partition or another target.", reason="queue_timeout"
    )


def no_callback(url: str, waited: float, log: str) -> StartFailed:
    what = f"The job runs, but its session did not call the hub within {spoken_duration(waited)}."
    why, remedy = clue(log) or (
        f"Either its environment is slow to load, or the node cannot reach {url}.",
        "Try again, and tell the site's support.",
    )
    return StartFailed(what, why, remedy, log, "no_callback")


def ended_job(state: str, words: str, exit_code: int | None, log: str) -> StartFailed:
    """A job that ended: its state and reason in Slurm's words, its exit code if known, the tail of its log."""
    what, evidence = "The job ended before the session was usable.", log or f"Slurm: {state} {words}".strip()
    if state in _ENDS:
        why, remedy, reason = _ENDS[state]
        return StartFailed(what, why, remedy, evidence, reason)
    code = f" with exit code {exit_code}" if exit_code else ""
    why, remedy = clue(log) or (
        f"Slurm says {state}{code}.",
        SEE_LOG if log else "Try again, and tell the site's support.",
    )
    return StartFailed(what, why, remedy, evidence, "exited")
