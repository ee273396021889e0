"""Pods: why one can never become a session, and its events in plain words."""

from __future__ import annotations

from typing import Any

from .failure import StartFailed
from .log import SEE_LOG, clue

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
    "CrashLoopBackOff": ("The server ends as soon as it has started.", SEE_LOG, "exited"),
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
        what, f"The server's exit code was {code}.", SEE_LOG, str(terminated.get("message") or ""), "exited"
    )


def with_log(failure: StartFailed, log: str) -> StartFailed:
    """`failure` with the tail of a log as evidence, and with what the log says of the cause."""
    if not log:
        return failure
    why, remedy = clue(log) or (failure.why, failure.remedy)
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
