"""Pods: why one can never become a session, why one ended, what the API server refuses, and events in plain words.

Pure functions over the JSON of pods, claims and nodes, as the API gives it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from ..duration import spoken_duration
from .failure import StartFailed
from .log import SEE_LOG, clue

_ENDED = "The pod ended before the session was usable."
_ASK = "Tell the site's support."
_OTHER = "Choose another environment, and tell the site's support."
_AGAIN = "Start again."
_ELSEWHERE = "Choose another target, and tell the site's support."
_LESS = "Try a smaller profile or another target, or try later."
_IMAGE_WAITS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")

# reason of a waiting container -> why, remedy, reason for metrics
_WAITING = {
    "ErrImagePull": ("The image cannot be pulled.", _OTHER, "image"),
    "ImagePullBackOff": ("The image cannot be pulled.", _OTHER, "image"),
    "ErrImageNeverPull": ("The image is not on the node.", _OTHER, "image"),
    "InvalidImageName": ("The image has no valid name.", _ASK, "image"),
    "CrashLoopBackOff": ("The server ends as soon as it has started.", SEE_LOG, "exited"),
    "CreateContainerConfigError": ("The container cannot be configured.", _ASK, "site_error"),
    "CreateContainerError": ("The container cannot be created.", _ASK, "site_error"),
    "RunContainerError": ("The container cannot be run.", _OTHER, "site_error"),
}
# words of a failed pull that may be otherwise in a minute; then the back-off that follows decides
_PASSING = re.compile(r"timeout|timed out|connection re|EOF|too many requests|429|50[0234]|TLS handshake|i/o", re.I)

# status.reason of a pod that ended (kubelet, controllers) -> why, remedy, reason for metrics
_POD_ENDS = {
    "Evicted": ("Its node ran short of resources and evicted it.", "Choose a profile with more memory.", "evicted"),
    "DeadlineExceeded": ("Its run time is over.", "Ask for more time.", "timeout"),
    "NodeLost": ("Its node does not answer any more.", "Start again; another node is used.", "node_fail"),
    "NodeShutdown": ("Its node is shut down.", "Start again; another node is used.", "node_fail"),
    "Shutdown": ("Its node is shut down.", "Start again; another node is used.", "node_fail"),
    "Terminated": ("Its node is shut down.", "Start again; another node is used.", "node_fail"),
    "Preempting": ("A pod with a higher priority took its place.", "Start again, or try later.", "preempted"),
    "UnexpectedAdmissionError": ("Its node could not give it its devices.", _AGAIN, "node_fail"),
    "NodeAffinity": ("Its node does not fit it any more.", _AGAIN, "node_fail"),
}
_DISRUPTIONS = {
    "PreemptionByScheduler": _POD_ENDS["Preempting"],
    "DeletionByTaintManager": ("Its node was taken out of service.", "Start again; another node is used.", "evicted"),
    "EvictionByEvictionAPI": ("It was evicted, as for the maintenance of its node.", _AGAIN, "evicted"),
    "DeletionByPodGC": ("Its node is no longer part of the cluster.", _AGAIN, "node_fail"),
    "TerminationByKubelet": _POD_ENDS["Evicted"],
}
# reason of an event about a pod that is being deleted
_EVICTIONS = {
    "TaintManagerEviction": _DISRUPTIONS["DeletionByTaintManager"],
    "Evicted": _POD_ENDS["Evicted"],
    "Preempted": _POD_ENDS["Preempting"],
}

# words of the API server when it refuses a pod -> why, remedy, reason for metrics
_REFUSALS = (
    ("exceeded quota", "The quota of the namespace is used up.", "Stop another session, or ask for less.", "quota"),
    ("failed quota", "The quota of the namespace asks for a limit that the pod does not name.", _ASK, "site_error"),
    (
        r"service ?account .*(?:not found|does not exist)",
        "The service account of sessions does not exist in the namespace.",
        _ASK,
        "site_error",
    ),
    ("priority ?class", "The priority class that the site names does not exist.", _ASK, "site_error"),
    (
        r"(?:maximum|minimum) .* usage per|limit to request ratio",
        "The profile is outside the limits of the namespace.",
        "Choose another profile.",
        "limit",
    ),
    ("violates PodSecurity", "The cluster's security rules do not allow such a pod.", _ASK, "policy"),
    (r"admission webhook .* denied", "A rule of the cluster does not allow this pod.", _ASK, "policy"),
    (
        r"failed calling (?:admission )?webhook",
        "A part of the cluster that checks pods does not answer.",
        "Try again in some minutes, or choose another target.",
        "backend_down",
    ),
    (r"namespace.* not found|being terminated", "The namespace of sessions is not there.", _ASK, "site_error"),
    (r"cannot \w+ resource|Unauthorized", "The hub lacks a right in the cluster.", _ASK, "site_error"),
    (r"is invalid|BadRequest|unable to parse", "The pod's description is not valid.", _ASK, "site_error"),
)

# parts of the scheduler's words ("2 Insufficient nvidia.com/gpu") in plain words; {} is what matched
_NO_NODE = (
    (r"Insufficient \S*gpu\S*", "{have} too few free GPUs"),
    (r"Insufficient cpu", "{have} too few free cores"),
    (r"Insufficient memory", "{have} too little free memory"),
    (r"Too many pods|Insufficient pods", "{have} as many pods as allowed"),
    (r"Insufficient (\S+)", "{have} too little {}"),
    (r"taint", "{are} reserved for other work or out of service"),
    (r"unschedulable", "{are} closed for maintenance"),
    (r"not ready", "{are} not ready"),
    (r"selector|affinity.rules|node affinity", "{are} of another kind"),
    (r"volume", "{are} out of reach of the volume"),
    (r"free ports", "{have} no free port"),
)


# --- a pod that cannot become a session, or has ended ----------------------------------------------------------------


def pod_failure(pod: dict[str, Any], container: str = "notebook") -> StartFailed | None:
    """Why a pod (its JSON) can never become a session, without its log; None while it still can."""
    status = pod.get("status") or {}
    if status.get("phase") == "Failed" and status.get("reason"):
        return _ended_pod(str(status["reason"]), str(status.get("message") or ""))
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for state in statuses:
        waiting, terminated = state.get("state", {}).get("waiting"), state.get("state", {}).get("terminated")
        if waiting and waiting.get("reason") in _WAITING:
            if waiting["reason"] == "ErrImagePull" and _PASSING.search(str(waiting.get("message") or "")):
                continue
            return _waiting_container(state, waiting)
        if terminated and (state.get("name") == container or status.get("phase") == "Failed"):
            if state.get("name") != container and terminated.get("exitCode") == 0:
                continue
            return ended_container(terminated)
    if status.get("phase") == "Failed":
        return StartFailed(_ENDED, "Kubernetes ended it.", "Try again.", str(status.get("message") or ""), "exited")
    return None


def _waiting_container(state: dict[str, Any], waiting: dict[str, Any]) -> StartFailed:
    name = str(waiting["reason"])
    before = (state.get("lastState") or {}).get("terminated")
    if name == "CrashLoopBackOff" and before:
        return ended_container(before)
    why, remedy, reason = _WAITING[name]
    if name in _IMAGE_WAITS and state.get("image"):
        why = f"{why.rstrip('.')} ({state['image']})."
    words = f"{name}: {waiting.get('message', '')}".strip(": ")
    return StartFailed("The pod cannot start.", why, remedy, words, reason)


def _ended_pod(name: str, message: str) -> StartFailed:
    words = f"{name}: {message}".strip(": ")
    if name.startswith("OutOf"):  # the kubelet's own check: OutOfcpu, OutOfmemory, OutOfnvidia.com/gpu
        why = f"Its node had no {name.removeprefix('OutOf')} left when the pod arrived."
        return StartFailed(_ENDED, why, _AGAIN, words, "node_fail")
    why, remedy, reason = _POD_ENDS.get(name, ("Kubernetes ended it.", "Try again.", "exited"))
    if name == "Evicted" and "memory" not in message:
        remedy = "Free space on the session's disks, or start again." if "storage" in message else _AGAIN
    return StartFailed(_ENDED, why, remedy, words, reason)


def ended_container(terminated: dict[str, Any]) -> StartFailed:
    code, name, message = terminated.get("exitCode"), terminated.get("reason"), str(terminated.get("message") or "")
    if name == "OOMKilled":
        why, remedy = "It used more memory than it has.", "Choose a profile with more memory."
        return StartFailed(_ENDED, why, remedy, "OOMKilled", "memory")
    if name in ("StartError", "ContainerCannotRun"):
        why, remedy = "The server's program cannot be run in this image.", _OTHER
        if re.search("no such file|not found", message, re.I):
            why = "The server's program is missing in the image."
        return StartFailed("The pod cannot start.", why, remedy, f"{name}: {message}", "site_error")
    if code == 137:
        why = "Its server was killed from outside (signal 9)."
        return StartFailed(_ENDED, why, "Start again; if it happens again, choose more memory.", message, "exited")
    return StartFailed(_ENDED, f"The server's exit code was {code}.", SEE_LOG, message, "exited")


def deleted(pod: dict[str, Any], events: Sequence[str], node: str | None) -> StartFailed:
    """Why a pod is or was deleted although the hub did not ask for it.

    `events` are `Reason: message` about the pod, oldest first; `node` is what speaks against its node (node_trouble).
    """
    status = pod.get("status") or {}
    evidence = "\n".join(events[-8:])
    if node == "gone":
        return _why_deleted(_DISRUPTIONS["DeletionByPodGC"], evidence or f"Node: {_node_of(pod)}")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            words = f"{condition.get('reason')}: {condition.get('message', '')}".strip(": ")
            known = _DISRUPTIONS.get(str(condition.get("reason")), _POD_ENDS["Evicted"])
            return _why_deleted(known, "\n".join([words, *events[-8:]]))
    if status.get("reason") in _POD_ENDS and status.get("phase") == "Failed":
        return _ended_pod(str(status["reason"]), str(status.get("message") or ""))
    if node == "drained":
        return _why_deleted(_DISRUPTIONS["DeletionByTaintManager"], evidence or f"Node: {_node_of(pod)}")
    if node == "not ready":
        return _why_deleted(_POD_ENDS["NodeLost"], evidence or f"Node: {_node_of(pod)}")
    for event in reversed(events):
        if (known_event := _EVICTIONS.get(event.partition(":")[0])) is not None:
            return _why_deleted(known_event, evidence)
    why = "It was deleted or evicted by someone else than the hub, such as an administrator who empties its node."
    return StartFailed("The pod was taken away before the session was usable.", why, _AGAIN, evidence, "deleted")


def _why_deleted(known: tuple[str, str, str], evidence: str) -> StartFailed:
    why, remedy, reason = known
    return StartFailed("The pod was taken away before the session was usable.", why, remedy, evidence, reason)


def _node_of(pod: dict[str, Any]) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "none")


def node_trouble(node: dict[str, Any] | None) -> str | None:
    """What speaks against a node (its JSON; None: it does not exist): "gone", "not ready", "drained", or None."""
    if node is None:
        return "gone"
    spec, conditions = node.get("spec") or {}, (node.get("status") or {}).get("conditions") or []
    if not any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
        return "not ready"
    emptied = any(taint.get("effect") == "NoExecute" for taint in spec.get("taints") or [])
    return "drained" if emptied or spec.get("unschedulable") else None


def exit_code(pod: dict[str, Any], container: str = "notebook") -> int | None:
    """The exit code of a session whose pod has ended, 1 when it is not told; None while the pod may run."""
    status = pod.get("status") or {}
    for state in status.get("containerStatuses") or []:
        terminated = state.get("state", {}).get("terminated")
        if state.get("name") == container and terminated:
            return int(terminated.get("exitCode", 1))
    return {"Failed": 1, "Succeeded": 0}.get(str(status.get("phase")))


def with_log(failure: StartFailed, log: str) -> StartFailed:
    """`failure` with the tail of a log as evidence, and with what the log says of the cause."""
    if not log:
        return failure
    why, remedy = failure.why, failure.remedy
    if failure.reason == "exited":
        why, remedy = clue(log) or (why, remedy)
    return StartFailed(failure.what, why, remedy, log, failure.reason)


# --- refusals, silence, waits that were too long ---------------------------------------------------------------------


def refused(words: str) -> StartFailed:
    """The API server's answer to a pod that it does not take: its JSON or plain text."""
    words = _message(words)
    for pattern, why, remedy, reason in _REFUSALS:
        if re.search(pattern, words, re.IGNORECASE):
            return StartFailed("Kubernetes refused the pod.", why, remedy, words, reason)
    why, remedy = "Its words are below.", "Change the request, or show them to the site's support."
    return StartFailed("Kubernetes refused the pod.", why, remedy, words, "refused")


def _message(words: str) -> str:
    try:
        return str(json.loads(words)["message"])
    except (ValueError, KeyError, TypeError):
        return words


def silent(words: str) -> StartFailed:
    remedy = "Try again in some minutes, or choose another target."
    return StartFailed("The pod could not be started.", "Kubernetes does not answer.", remedy, words, "backend_down")


def occupied(words: str) -> StartFailed:
    remedy = "Try again in some minutes; if it stays so, tell the site's support."
    return StartFailed("The pod could not be created.", words, remedy, reason="leftover")


_UNPREPARED = {
    "FailedCreatePodSandBox": ("Its node cannot prepare pods.", _ELSEWHERE),
    "FailedMount": ("A volume of the pod could not be mounted.", _ELSEWHERE),
    "FailedAttachVolume": ("A volume of the pod could not be attached.", _ELSEWHERE),
}


def not_in_time(pod: dict[str, Any] | None, waited: float, events: Sequence[str] = ()) -> StartFailed:
    """The pod did not run within the target's start_timeout (`waited` seconds); `events` as of `deleted`."""
    what = f"The pod did not start within {spoken_duration(waited)} and was taken back."
    words = unschedulable(pod or {})
    if words is not None:
        return StartFailed(what, scheduler_words(words), _LESS, words, "queue_timeout")
    states = ((pod or {}).get("status") or {}).get("containerStatuses") or []
    waits = [str((s.get("state", {}).get("waiting") or {}).get("reason") or "") for s in states]
    why = "Its node was still preparing it." if any(waits) or _scheduled(pod) else "Kubernetes had not looked at it."
    remedy = "Try again, or choose another target."
    for event in reversed(events):
        if (known := _UNPREPARED.get(event.partition(":")[0])) is not None:
            why, remedy = known
            break
    return StartFailed(what, why, remedy, "\n".join([*events[-8:], *filter(None, waits)]), "timeout")


def _scheduled(pod: dict[str, Any] | None) -> bool:
    return bool(((pod or {}).get("spec") or {}).get("nodeName"))


def unschedulable(pod: dict[str, Any]) -> str | None:
    """The scheduler's words for a pod that no node can take now, or None."""
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or condition.get("reason") or "no node can take it")
    return None


def scheduler_words(words: str) -> str:
    """`0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 ...` as a plain sentence."""
    if waits_for_volume(words):
        return "A volume of the pod is not ready."
    match = re.match(r"0/(\d+) nodes are available: (.*)", words.partition(" preemption:")[0], re.DOTALL)
    if match is None:
        return "No node can take the pod now."
    total, parts = int(match[1]), []
    for count, fault in re.findall(r"(?<![\w.])(\d+) ([A-Za-z].*?)(?=, \d+ [A-Za-z]|\.(?:\s|$)|$)", match[2]):
        parts.append(f"{'it' if total == 1 else count} {_plain_fault(fault, int(count))}")
    nodes = "The one node cannot" if total == 1 else f"None of the {total} nodes can"
    return f"{nodes} take the pod now: {'; '.join(parts) or match[2].rstrip('.')}."


def _plain_fault(fault: str, nodes: int) -> str:
    have, are = ("has", "is") if nodes == 1 else ("have", "are")
    for pattern, plain in _NO_NODE:
        if (match := re.search(pattern, fault)) is not None:
            return plain.format(*match.groups(), have=have, are=are)
    return f"{have} this against it: {fault}"


# --- volumes ---------------------------------------------------------------------------------------------------------


def waits_for_volume(words: str) -> bool:
    """Whether the scheduler's words mean that a volume claim is missing or not bound."""
    return re.search(r"persistentvolumeclaim|unbound immediate|PersistentVolumeClaims", words, re.I) is not None


def unbound_volume(claim: str, phase: str | None, words: str, waited: float) -> StartFailed:
    """A claim that is not bound after `waited` seconds. `phase` None: it does not exist; `words`: its last event."""
    what = f"The volume claim {claim} was not ready within {spoken_duration(waited)}."
    if phase is None:
        return StartFailed(what, "There is no claim of that name.", _ASK, words, "volume")
    if phase == "Lost":
        return StartFailed(what, "Its volume has been lost.", _ASK, words, "volume")
    why = "The cluster has not provided the volume."
    if re.search(r"storageclass.*not found", words, re.I):
        why = "Its storage class does not exist."
    elif re.search(r"no persistent volumes available", words, re.I):
        why = "No volume fits it, and nothing makes one."
    elif re.search(r"quota|insufficient|no space", words, re.I):
        why = "The storage system has no room for it."
    return StartFailed(what, why, "Try again in some minutes, and tell the site's support.", words, "volume")


# --- events ----------------------------------------------------------------------------------------------------------

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
    "FailedCreatePodSandBox": ("The node cannot prepare the pod yet; Kubernetes tries again", 30),
    "TriggeredScaleUp": ("The cluster adds a node for the pod; this takes minutes", 20),
    "NotTriggerScaleUp": ("No node can take the pod, and the cluster does not add one", 20),
    "TaintManagerEviction": ("The pod's node is taken out of service", None),
    "Preempted": ("A pod with a higher priority takes the place", None),
}


def pod_event_words(reason: str, words: str) -> tuple[str, int | None, str] | None:
    """(message, percent, detail) for an event of a pod; None for one that tells a user nothing."""
    if reason not in _POD_EVENTS:
        return None
    message, percent = _POD_EVENTS[reason]
    if reason == "FailedScheduling":
        message = f"{scheduler_words(words).rstrip('.')}; it waits"
    return message, percent, words
