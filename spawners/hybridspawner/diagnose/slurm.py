"""Slurm's words: refusals of sbatch, reasons of waiting, ends of jobs."""

from __future__ import annotations

import re

from ..duration import spoken_duration
from .failure import StartFailed
from .log import SEE_LOG, clue, find_clue, without_secrets
from .slurm_reasons import limit_of, reason_words, unsatisfiable

_SUPPORT = "Tell the site's support."

# (pattern in sbatch's words, why, remedy, label for metrics): texts of slurm_errno.c, 22.05 to 25.05, and of sudo.
# {} stands for what the pattern's group found.
_REFUSALS = (
    (
        r"invalid partition specified: (\S+)|invalid partition|partition.*not (?:valid|found)",
        "The partition {} does not exist.",
        "Choose another partition.",
        "invalid_partition",
    ),
    (
        "no partition specified or system default",
        "No partition was chosen, and the cluster has no default.",
        "Choose a partition.",
        "invalid_partition",
    ),
    (
        "not permitted to use this partition",
        "The partition is not open to you.",
        "Choose another partition.",
        "invalid_partition",
    ),
    (
        "invalid account|account/partition combination",
        "The account does not exist here, is not yours, or may not use the partition.",
        "Choose another account.",
        "invalid_account",
    ),
    (
        "invalid qos specification",
        "The quality of service does not exist here or is not yours.",
        _SUPPORT,
        "invalid_qos",
    ),
    (
        "access denied to requested reservation",
        "The reservation is not open to you.",
        "Choose another reservation or none.",
        "invalid_reservation",
    ),
    (
        "reservation (?:not usable|is in use)",
        "The reservation cannot be used now: it has not begun, or it is full.",
        "Start when it has begun, or choose another reservation or none.",
        "invalid_reservation",
    ),
    (
        "reservation",
        "The reservation does not exist, has ended, or is not open to you.",
        "Choose another reservation or none.",
        "invalid_reservation",
    ),
    (
        "usage threshold",
        "The account has used more than its share.",
        "Choose another account, or wait.",
        "limit",
    ),
    (
        "job violates accounting|job submit limit",
        "A limit of your account or quality of service is reached.",
        "Stop another session or job, or ask for less.",
        "limit",
    ),
    (
        "time limit|requested time|invalid time",
        "The run time is over the limit of the partition.",
        "Ask for less time.",
        "time_limit",
    ),
    (
        "maxjobcount|temporarily unable to accept job|rate limit exceeded",
        "The cluster holds as many jobs as it can.",
        "Try again in some minutes, or choose another target.",
        "cluster_full",
    ),
    (
        "submissions disabled|presently disabled",
        "The cluster takes no jobs at the moment.",
        "Try later, or choose another target.",
        "backend_down",
    ),
    (
        "partition not available|partition in down state|partition.*(?:down|inactive|drain)",
        "The partition takes no jobs at the moment.",
        "Choose another partition or target, or try later.",
        "partition_down",
    ),
    (
        "node not available",
        "The nodes asked for are down or reserved.",
        "Choose another partition or target, or try later.",
        "partition_down",
    ),
    (
        "memory (?:specification|required)",
        "No node of the partition has that much memory.",
        "Choose another profile or partition.",
        "no_such_node",
    ),
    (
        r"configuration (?:is )?not available|more processors|gres|(?:node|cpu) count|feature spec|nodes not in this",
        "The partition has no node that is large enough.",
        "Choose another profile or partition.",
        "no_such_node",
    ),
    (
        r"unknown user:? (\S+)|user (\S+) does not exist|(?:invalid|unknown) user",
        "The cluster does not know your account {}.",
        "Ask the site's support for access to the cluster.",
        "no_user",
    ),
    (
        "password is required|not allowed to execute|may not run sudo",
        "The hub may not start jobs in your name.",
        _SUPPORT,
        "site_error",
    ),
    (
        "permission denied",
        "You may not do this on the cluster.",
        _SUPPORT,
        "denied",
    ),
)

# state -> (why, remedy, label); {} is filled by `_named`
_ENDS = {
    "TIMEOUT": ("The job reached its time limit{}.", "Ask for more time.", "timeout"),
    "OUT_OF_MEMORY": ("The job used more memory than it has.", "Choose a profile with more memory.", "memory"),
    "NODE_FAIL": ("The node{} failed.", "Start again; the scheduler avoids the node.", "node_fail"),
    "BOOT_FAIL": ("The node{} could not be started.", "Start again; the scheduler avoids the node.", "node_fail"),
    "CANCELLED": ("The job was cancelled outside JupyterHub.", "Start again, or ask who cancelled it.", "cancelled"),
    "REVOKED": ("The job was cancelled outside JupyterHub.", "Start again, or ask who cancelled it.", "cancelled"),
    "PREEMPTED": (
        "A job with a higher priority took the nodes.",
        "Start again, or choose another partition.",
        "preempted",
    ),
    "DEADLINE": ("The job's deadline passed.", "Start again.", "deadline"),
    "GONE": ("Slurm knows the job no more, and nothing records how it ended.", "Start again.", "exited"),
}

_LOG_NOT_OPENED = 53  # the "signal" that slurmd reports when it cannot open the job's output (ExitCode 0:53)

# exit status of the job's shell -> (why, remedy, label)
_STATUSES = {
    126: (
        "A program of the environment is not executable for you on the node (exit code 126).",
        "Choose another environment, or have its owner open it and the directories above it to you.",
        "permission",
    ),
    127: (
        "A program of the environment is missing on the node (exit code 127).",
        "Choose another environment, and tell the site's support.",
        "environment",
    ),
    13: (
        "A program of the environment is not executable for you on the node (exit code 13).",
        "Choose another environment, or have its owner open it and the directories above it to you.",
        "permission",
    ),
    128 + 9: (
        "It was killed (signal 9); most often that means that it used more memory than it has.",
        "Choose a profile with more memory; if that does not help, tell the site's support.",
        "killed",
    ),
    128 + 15: ("It was told to end (signal 15) from outside JupyterHub.", "Start again.", "killed"),
    128 + 11: ("A program of the environment crashed (signal 11).", "Choose another environment.", "crashed"),
    128 + 4: (
        "A program of the environment is made for another kind of processor (signal 4).",
        "Choose another environment.",
        "crashed",
    ),
}


def queue_words(reason: str, start: str, ahead: int | None = None, partition: str = "") -> tuple[str, int, str]:
    """(message, percent, detail) for a queued job: squeue's reason, expected start, how many jobs are before it.

    Raises StartFailed for a reason that no waiting removes (`never_starts`).
    """
    hopeless = never_starts(reason, partition)
    if hopeless is not None:
        raise hopeless
    return _queue_words(reason, start, ahead)


def _queue_words(reason: str, start: str, ahead: int | None = None) -> tuple[str, int, str]:
    words = reason_words(reason)
    place = (
        "" if ahead is None else f"; {ahead} job{'' if ahead == 1 else 's'} before it" if ahead else "; it is the next"
    )
    estimate = f"; estimated start {start.replace('T', ' ')}" if re.match(r"\d{4}-", start) else ""
    detail = f"Slurm's reason: {reason}" if reason and reason != words else ""
    return f"In the queue: {words}{place}{estimate}", 20, detail


def never_starts(reason: str, partition: str = "") -> StartFailed | None:
    """The end of a start whose job waits for what can never come, by squeue's `reason`; None while it may start.

    `partition` as squeue writes it: of a job that may use several, a limit of one partition says nothing of the others.
    """
    found = unsatisfiable(reason, several="," in partition)
    if found is None:
        return None
    why, remedy, label = found
    return StartFailed("The job can never start and was taken back.", why, remedy, f"Slurm's reason: {reason}", label)


def refused_submission(words: str) -> StartFailed:
    """Why sbatch said no; its words are the evidence."""
    what, words = "Slurm refused the job.", without_secrets(words)
    limit = next(filter(None, map(limit_of, re.findall(r"\b\w+\b", words))), None)
    if limit is not None:
        return StartFailed(what, limit.sentence, limit.remedy, words, limit.label)
    for pattern, why, remedy, reason in _REFUSALS:
        match = re.search(pattern, words, re.IGNORECASE)
        if match:
            named = next((group for group in match.groups() if group), "")
            why = why.replace("{}", named) if named else why.replace(" {}", "")
            return StartFailed(what, why, remedy, words, reason)
    said = [re.sub(r"^sbatch: (?:error: )?(?:Batch job submission failed: )?", "", line) for line in words.splitlines()]
    told = next((line.strip() for line in said if line.strip() not in ("", "Unspecified error")), "")
    why = f"It says: {told[:200].rstrip('.')}." if told else "It did not say why."
    return StartFailed(what, why, "Change the request, or show Slurm's words to the site's support.", words, "refused")


def silent_controller(words: str) -> StartFailed:
    why = "Slurm does not answer."
    return StartFailed(
        "The job could not be submitted.",
        why,
        "Try again in some minutes, or choose another target.",
        without_secrets(words),
        "backend_down",
    )


def queue_timeout(waited: float, reason: str, start: str) -> StartFailed:
    message, _, detail = _queue_words(reason, start)
    what = f"The job did not start within {spoken_duration(waited)} and was taken back."
    remedy = "Try a smaller profile, another partition or another target."
    return StartFailed(what, message + ".", remedy, detail, "queue_timeout")


def no_callback(url: str, waited: float, log: str) -> StartFailed:
    what = f"The job runs, but its session did not call the hub within {spoken_duration(waited)}."
    found = find_clue(log)
    why, remedy = clue(log) or (
        f"Either its environment is slow to load, or the node cannot reach {url}.",
        "Try again, and tell the site's support.",
    )
    label = found.reason if found is not None and found.reason == "hub_unreachable" else "no_callback"
    return StartFailed(what, why, remedy, without_secrets(log), label)


def ended_job(
    state: str,
    words: str,
    exit_code: int | None,
    log: str,
    *,
    host: str = "",
    runtime: str = "",
    log_path: str = "",
) -> StartFailed:
    """A job that ended: its state and reason in Slurm's words, its exit status as a shell's, the tail of its log.

    `host` is its node, `runtime` the time that it had, `log_path` where its log should be: named where they matter.
    """
    what, log = "The job ended before the session was usable.", without_secrets(log).strip()
    evidence = "\n\n".join(filter(None, [_slurm_says(state, words, exit_code, host), log]))
    found = find_clue(log)
    if state == "CANCELLED" and found is not None and found.reason in ("timeout", "memory"):
        state = {"timeout": "TIMEOUT", "memory": "OUT_OF_MEMORY"}[found.reason]
    if state in _ENDS:
        why, remedy, label = _ENDS[state]
        named = {"TIMEOUT": runtime and f" of {runtime}", "NODE_FAIL": host and f" {host}", "BOOT_FAIL": ""}
        return StartFailed(what, why.replace("{}", named.get(state, "")), remedy, evidence, label)
    if found is not None:
        return StartFailed(what, found.why, found.remedy, evidence, found.reason)
    if not log and (exit_code == 128 + _LOG_NOT_OPENED or f"RaisedSignal:{_LOG_NOT_OPENED}" in words):
        return StartFailed(what, _log_not_opened(log_path), _HOME_REMEDY, evidence, "home")
    if state == "FAILED" and words.startswith("BadConstraints"):
        why = "The partition has no node that is large enough."
        return StartFailed(what, why, "Choose another profile or partition.", evidence, "no_such_node")
    if exit_code in _STATUSES:
        return StartFailed(what, *_STATUSES[exit_code][:2], evidence, _STATUSES[exit_code][2])
    if not exit_code and state == "COMPLETED":
        return StartFailed(
            what, "The server ended by itself, without an error.", SEE_LOG if log else _SUPPORT, evidence, "exited"
        )
    code = f" with exit code {exit_code}" if exit_code else ""
    remedy = SEE_LOG if log else "Try again, and tell the site's support."
    return StartFailed(what, f"Slurm says {state or 'nothing of its end'}{code}.", remedy, evidence, "exited")


_HOME_REMEDY = (
    "See that your home directory has free space and is writable for you; if it is, tell the site's support that the "
    "node may not have it."
)


def _log_not_opened(path: str) -> str:
    where = f" {path}" if path else ""
    return f"The node could not write the session's log{where}: the directory is missing there or not writable for you."


def _slurm_says(state: str, words: str, exit_code: int | None, host: str) -> str:
    """Slurm's record of an end in one line."""
    parts = [state or "no state", "" if words == "None" else words]
    if exit_code is not None and exit_code > 128:
        parts.append(f"signal {exit_code - 128}")
    elif exit_code:
        parts.append(f"exit code {exit_code}")
    parts.append(f"node {host}" if host else "")
    return "Slurm: " + ", ".join(filter(None, parts))
