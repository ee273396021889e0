"""Evidence -> what happened, why, and what to do. Pure functions from schedulers' words, pods and logs to StartFailed."""

from __future__ import annotations

import re
from typing import Any

from .duration import spoken_duration


class StartFailed(Exception):
    """A session could not be started, or ended while it started.

    `what` happened, `why`, what to do (`remedy`), and the `evidence`: the scheduler's words or the tail of a log.
    `reason` is a short label for metrics.
    """

    def __init__(self, what: str, why: str, remedy: str, evidence: str = "", reason: str = "start_failed") -> None:
        super().__init__(f"{what} {why} {remedy}")
        self.what, self.why, self.remedy, self.evidence, self.reason = what, why, remedy, evidence, reason


_LOG = "The log below has the details; if it does not help, show it to the site's support."

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

_LOG_CLUES = (
    (
        r"No module named '?jupyterhub",
        "The environment lacks JupyterHub.",
        "Choose another environment, or install jupyterhub and jupyterlab into this one.",
    ),
    (
        r"No module named '?jupyter",
        "The environment lacks JupyterLab.",
        "Choose another environment, or install jupyterlab into this one.",
    ),
    (
        r"ModuleNotFoundError: No module named '([\w.]+)'",
        "The environment lacks a Python package.",
        "Choose another environment, or install the package.",
    ),
    (
        r"(?:No such file or directory|command not found)",
        "A program of the environment is missing on the node.",
        "Choose another environment, and tell the site's support.",
    ),
    (
        r"Permission denied",
        "Something is not readable or not executable for you on the node.",
        "Check the file named in the log, and tell the site's support.",
    ),
    (r"(?:Disk quota exceeded|No space left on device)", "The disk is full.", "Free space in your home directory."),
    (r"The hub at .* was out of reach", "The node could not reach the hub.", "Tell the site's support."),
    (r"does not wait for this session", "The hub had given up on this session.", "Start again."),
)


def queue_words(reason: str, start: str) -> tuple[str, int, str]:
    """(message, percent, detail) for a queued job, from squeue's reason and expected start."""
    words = _QUEUE_REASONS.get(reason.split(",")[0].strip(), reason or "the scheduler has not looked at it yet")
    estimate = f"; estimated start {start.replace('T', ' ')}" if re.match(r"\d{4}-", start) else ""
    return f"In the queue: {words}{estimate}", 20, f"Slurm's reason: {reason}" if reason and reason != words else ""


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
    why, remedy = _clue(log) or (
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
    why, remedy = _clue(log) or (
        f"Slurm says {state}{code}.",
        _LOG if log else "Try again, and tell the site's support.",
    )
    return StartFailed(what, why, remedy, evidence, "exited")


def ended_process(exit_code: int, log: str) -> StartFailed:
    why, remedy = _clue(log) or (f"Its exit code was {exit_code}.", _LOG)
    return StartFailed("The session's process ended before it was usable.", why, remedy, log, "exited")


def not_reachable(url: str, waited: float, log: str) -> StartFailed:
    what = f"The session runs, but its server did not answer within {spoken_duration(waited)}."
    return StartFailed(what, f"The hub tried {url}.", "Try again, and tell the site's support.", log, "not_reachable")


_WAITING = {
    "ErrImagePull": (
        "The image cannot be pulled.",
        "Choose another environment, and tell the site's support.",
        "image",
    ),
    "ImagePullBackOff": (
        "The image cannot be pulled.",
        "Choose another environment, and tell the site's support.",
        "image",
    ),
    "ErrImageNeverPull": (
        "The image is not on the node.",
        "Choose another environment, and tell the site's support.",
        "image",
    ),
    "InvalidImageName": ("The image has no valid name.", "Tell the site's support.", "image"),
    "CrashLoopBackOff": ("The server ends as soon as it has started.", _LOG, "exited"),
    "CreateContainerConfigError": ("The container cannot be configured.", "Tell the site's support.", "site_error"),
    "CreateContainerError": ("The container cannot be created.", "Tell the site's support.", "site_error"),
    "RunContainerError": ("The container cannot be run.", "Tell the site's support.", "site_error"),
}


def pod_failure(pod: dict[str, Any], container: str = "notebook") -> StartFailed | None:
    """Why a pod (its JSON) can never become a session, without its log; None while it still can."""
    status = pod.get("status") or {}
    for state in status.get("containerStatuses") or []:
        waiting, terminated = state.get("state", {}).get("waiting"), state.get("state", {}).get("terminated")
        if waiting and waiting.get("reason") in _WAITING:
            why, remedy, reason = _WAITING[waiting["reason"]]
            words = f"{waiting['reason']}: {waiting.get('message', '')}".strip(": ")
            return StartFailed("The pod cannot start.", why, remedy, words, reason)
        if state.get("name") == container and terminated:
            return ended_container(terminated)
    if status.get("phase") == "Failed":
        words = f"{status.get('reason', 'Failed')}: {status.get('message', '')}".strip(": ")
        return StartFailed(
            "The pod ended before the session was usable.", "Kubernetes ended it.", "Try again.", words, "exited"
        )
    return None


def ended_container(terminated: dict[str, Any]) -> StartFailed:
    what = "The pod ended before the session was usable."
    code = terminated.get("exitCode")
    if terminated.get("reason") == "OOMKilled":
        return StartFailed(
            what, "It used more memory than it has.", "Choose a profile with more memory.", "OOMKilled", "memory"
        )
    return StartFailed(
        what, f"The server's exit code was {code}.", _LOG, str(terminated.get("message") or ""), "exited"
    )


def with_log(failure: StartFailed, log: str) -> StartFailed:
    """`failure` with the tail of a log as evidence, and with what the log says of the cause."""
    if not log:
        return failure
    why, remedy = _clue(log) or (failure.why, failure.remedy)
    if failure.reason != "exited":
        why, remedy = failure.why, failure.remedy
    return StartFailed(failure.what, why, remedy, log, failure.reason)


_POD_EVENTS = {
    "Scheduled": ("A node was found for the pod", 20),
    "FailedScheduling": ("No node can take the pod yet; it waits", 20),
    "Pulling": ("The node is fetching the image; a large one takes minutes", 30),
    "Pulled": ("The image is on the node", 50),
    "Started": ("The container was started", 70),
    "FailedMount": ("A volume is not there yet; Kubernetes tries again", 30),
    "FailedAttachVolume": ("A volume cannot be attached yet; Kubernetes tries again", 30),
    "BackOff": ("Kubernetes waits before it tries again", None),
    "Failed": ("Something failed; Kubernetes tries again", None),
}


def pod_event_words(reason: str, words: str) -> tuple[str, int | None, str] | None:
    """(message, percent, detail) for an event of a pod; None for one that tells a user nothing."""
    if reason not in _POD_EVENTS:
        return None
    message, percent = _POD_EVENTS[reason]
    return message, percent, words


def unschedulable(pod: dict[str, Any]) -> str | None:
    """The scheduler's words for a pod that no node can take now, or None."""
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or condition.get("reason") or "no node can take it")
    return None


def _clue(log: str) -> tuple[str, str] | None:
    for pattern, why, remedy in _LOG_CLUES:
        match = re.search(pattern, log)
        if match:
            named = f" ({match[1]})" if match.groups() else ""
            return why.rstrip(".") + named + ".", remedy
    return None
