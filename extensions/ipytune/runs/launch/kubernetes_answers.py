"""What Kubernetes says of one Job and its pods, as data, and what that means. Pure; objects as in batch/v1 and v1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Reasons of a waiting container that do not mend themselves: worth words, though Kubernetes goes on trying.
_STUCK = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"}
)


@dataclass(frozen=True)
class JobState:
    """alive: not proved ended. waiting: no container has begun. clean: it ended as it should. words: what to tell."""

    alive: bool
    words: str
    waiting: bool = False
    clean: bool = False


SILENT = JobState(alive=True, words="Kubernetes does not answer")


def read(job: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]]) -> JobState:
    """From the Job (None: there is none of that name) and its pods."""
    if job is None:
        return JobState(False, "is no longer known to Kubernetes")
    for condition in job.get("status", {}).get("conditions") or []:
        if condition.get("status") != "True":
            continue
        if condition["type"] == "Complete":
            return JobState(False, "ended without a last word", clean=True)
        if condition["type"] == "Failed":
            return JobState(False, _failure(condition, pods))
    if job.get("metadata", {}).get("deletionTimestamp") and not pods:
        return JobState(False, "was deleted")
    if any(pod.get("status", {}).get("phase") in {"Running", "Succeeded", "Failed"} for pod in pods):
        return JobState(True, "running")
    why = next(_waits_for(pods), "")
    return JobState(True, f"waiting: {why}" if why else "waiting", waiting=True)


def _failure(condition: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
    reasons = [pod["status"]["reason"] for pod in pods if pod.get("status", {}).get("reason")]
    if "DeadlineExceeded" in [condition.get("reason"), *reasons]:
        return "reached its walltime"
    for ended in _terminated(pods):
        if ended.get("reason") == "OOMKilled":
            return "ran out of memory (lower row_tokens, or ask for more memory)"
        if ended.get("exitCode"):
            return f"failed with exit code {ended['exitCode']}"
    told = reasons[-1] if reasons else condition.get("message") or condition.get("reason") or "no reason given"
    return f"failed ({told})"


def _terminated(pods: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for pod in pods:
        for status in pod.get("status", {}).get("containerStatuses") or []:
            if ended := status.get("state", {}).get("terminated"):
                yield ended


def _waits_for(pods: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for pod in pods:
        status = pod.get("status", {})
        for container in status.get("containerStatuses") or []:
            held = container.get("state", {}).get("waiting") or {}
            if held.get("reason") in _STUCK:
                yield f"{held['reason']}: {held.get('message', '')}".rstrip(": ")
        for condition in status.get("conditions") or []:
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                yield condition.get("message") or condition.get("reason") or "not scheduled"
