"""Pods' ends, refusals, schedulers' words and volumes -> what, why, remedy: literal documents of the API."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridspawner.diagnose import kubernetes as diagnose


def container(**state: Any) -> dict[str, Any]:
    return {
        "spec": {},
        "status": {"containerStatuses": [{"name": "notebook", "image": "site/pytorch:3", "state": state}]},
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return container(waiting={"reason": reason, "message": message})


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return container(terminated={"exitCode": code, "reason": reason, "message": message})


def failed(reason: str, message: str = "") -> dict[str, Any]:
    return {"spec": {}, "status": {"phase": "Failed", "reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("pod", "why", "reason"),
    [
        (waiting("ErrImageNeverPull"), "The image is not on the node (site/pytorch:3).", "image"),
        (waiting("ErrImagePull", "manifest unknown"), "The image cannot be pulled (site/pytorch:3).", "image"),
        (waiting("ImagePullBackOff", "i/o timeout"), "The image cannot be pulled (site/pytorch:3).", "image"),
        (
            waiting("CreateContainerConfigError", 'secret "x" not found'),
            "The container cannot be configured.",
            "site_error",
        ),
        (ended(3), "The server's exit code was 3.", "exited"),
        (ended(137), "Its server was killed from outside (signal 9).", "exited"),
        (ended(137, "OOMKilled"), "It used more memory than it has.", "memory"),
        (
            ended(128, "StartError", 'exec: "/x": stat /x: no such file or directory'),
            "The server's program is missing in the image.",
            "site_error",
        ),
        (failed("Evicted", "low on resource: memory"), "Its node ran short of resources and evicted it.", "evicted"),
        (failed("DeadlineExceeded"), "Its run time is over.", "timeout"),
        (failed("NodeLost"), "Its node does not answer any more.", "node_fail"),
        (failed("OutOfnvidia.com/gpu"), "Its node had no nvidia.com/gpu left when the pod arrived.", "node_fail"),
        (failed(""), "Kubernetes ended it.", "exited"),
    ],
)
def test_a_pod_that_can_never_be_a_session(pod: dict[str, Any], why: str, reason: str) -> None:
    failure = diagnose.pod_failure(pod)
    assert failure is not None and (failure.why, failure.reason) == (why, reason) and failure.remedy


@pytest.mark.parametrize(
    "pod",
    [
        {},
        waiting("ContainerCreating"),
        waiting("ErrImagePull", "net/http: TLS handshake timeout"),  # the back-off that follows decides
        container(running={}),
        {"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}},
        {"status": {"initContainerStatuses": [{"name": "setup", "state": {"terminated": {"exitCode": 0}}}]}},
    ],
)
def test_a_pod_that_still_can(pod: dict[str, Any]) -> None:
    assert diagnose.pod_failure(pod) is None


def test_an_init_container_that_fails_fails_the_pod() -> None:
    states = [{"name": "setup", "state": {"terminated": {"exitCode": 9}}}]
    failure = diagnose.pod_failure({"status": {"phase": "Failed", "initContainerStatuses": states}})
    assert failure is not None and "exit code was 9" in failure.why


def test_a_crash_loop_tells_how_the_last_run_ended() -> None:
    pod = waiting("CrashLoopBackOff", "back-off 10s restarting")
    pod["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    failure = diagnose.pod_failure(pod)
    assert failure is not None and failure.reason == "memory"


BOUND = {"spec": {"nodeName": "n7"}, "status": {"phase": "Pending"}}


@pytest.mark.parametrize(
    ("pod", "events", "node", "why", "reason"),
    [
        (BOUND, [], "gone", "Its node is no longer part of the cluster.", "node_fail"),
        (BOUND, [], "not ready", "Its node does not answer any more.", "node_fail"),
        (BOUND, [], "drained", "Its node was taken out of service.", "evicted"),
        (BOUND, ["TaintManagerEviction: Marking for deletion"], None, "Its node was taken out of service.", "evicted"),
        (BOUND, ["Preempted: by x on node n7"], None, "A pod with a higher priority took its place.", "preempted"),
        (
            {
                "status": {
                    "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
                }
            },
            [],
            None,
            "It was evicted, as for the maintenance of its node.",
            "evicted",
        ),
        (
            {
                "status": {
                    "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
                }
            },
            [],
            None,
            "A pod with a higher priority took its place.",
            "preempted",
        ),
    ],
)
def test_a_pod_that_was_taken_away(
    pod: dict[str, Any], events: list[str], node: str | None, why: str, reason: str
) -> None:
    failure = diagnose.deleted(pod, events, node)
    assert (failure.why, failure.reason) == (why, reason)


def test_a_deletion_without_a_trace_is_told_as_such() -> None:
    failure = diagnose.deleted(BOUND, ["Started: Started container"], None)
    assert failure.reason == "deleted" and failure.evidence == "Started: Started container"


@pytest.mark.parametrize(
    ("words", "why", "reason"),
    [
        (
            'pods "x" is forbidden: exceeded quota: gpus, requested: ...',
            "The quota of the namespace is used up.",
            "quota",
        ),
        (
            'pods "x" is forbidden: error looking up service account a/b: serviceaccount "b" not found',
            "The service account of sessions does not exist in the namespace.",
            "site_error",
        ),
        (
            'admission webhook "images.site" denied the request: image is not signed',
            "A rule of the cluster does not allow this pod.",
            "policy",
        ),
        (
            'Internal error occurred: failed calling webhook "w": context deadline exceeded',
            "A part of the cluster that checks pods does not answer.",
            "backend_down",
        ),
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": host namespaces',
            "The cluster's security rules do not allow such a pod.",
            "policy",
        ),
        (
            'pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2G',
            "The profile is outside the limits of the namespace.",
            "limit",
        ),
        (
            'pods "x" is forbidden: no PriorityClass with name high was found',
            "The priority class that the site names does not exist.",
            "site_error",
        ),
        ('namespaces "sessions" not found', "The namespace of sessions is not there.", "site_error"),
        (
            'pods is forbidden: User "system:serviceaccount:hub:hub" cannot list resource "pods"',
            "The hub lacks a right in the cluster.",
            "site_error",
        ),
        ("I am a teapot", "Its words are below.", "refused"),
    ],
)
def test_what_the_api_server_refuses(words: str, why: str, reason: str) -> None:
    for told in (words, '{"kind":"Status","message":' + json.dumps(words) + "}"):
        failure = diagnose.refused(told)
        assert (failure.why, failure.reason, failure.evidence) == (why, reason, words)


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        (
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            "The one node cannot take the pod now: it has too few free GPUs.",
        ),
        (
            "0/5 nodes are available: 1 node(s) had taint {node-role.kubernetes.io/master: }, that the pod didn't"
            " tolerate, 2 Insufficient cpu, 2 node(s) were unschedulable.",
            "None of the 5 nodes can take the pod now: 1 is reserved for other work or out of service; 2 have too few"
            " free cores; 2 are closed for maintenance.",
        ),
        (
            "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
            " preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
            "None of the 3 nodes can take the pod now: 3 are of another kind.",
        ),
        ('0/1 nodes are available: 1 persistentvolumeclaim "x" not found.', "A volume of the pod is not ready."),
        ("skip schedule deleting pod: a/b", "No node can take the pod now."),
    ],
)
def test_the_schedulers_words(words: str, plain: str) -> None:
    assert diagnose.scheduler_words(words) == plain


@given(st.text(max_size=200))
def test_no_words_of_a_scheduler_break_the_page(words: str) -> None:
    assert diagnose.scheduler_words(words).endswith(".")
    assert diagnose.scheduler_words(f"0/3 nodes are available: {words}")
    assert diagnose.refused(words).what


def test_a_start_that_took_too_long_says_what_it_waited_for() -> None:
    words = "0/1 nodes are available: 1 Insufficient memory."
    condition = {"type": "PodScheduled", "status": "False", "message": words}
    failure = diagnose.not_in_time({"spec": {}, "status": {"conditions": [condition]}}, 90)
    assert failure.reason == "queue_timeout" and failure.evidence == words and "free memory" in failure.why
    assert "still preparing" in diagnose.not_in_time(BOUND, 90).why
    assert diagnose.not_in_time(None, 90).reason == "timeout"


def test_a_node_that_cannot_prepare_a_pod_is_named_with_its_words() -> None:
    events = ["Scheduled: to node1", "FailedCreatePodSandBox: failed to get sandbox image", "Other: thing"]
    failure = diagnose.not_in_time(BOUND, 60, events)
    assert failure.why == "Its node cannot prepare pods." and "sandbox image" in failure.evidence


@pytest.mark.parametrize(
    ("phase", "words", "why"),
    [
        (None, "", "There is no claim of that name."),
        ("Lost", "", "Its volume has been lost."),
        (
            "Pending",
            'ProvisioningFailed: storageclass.storage.k8s.io "fast" not found',
            "Its storage class does not exist.",
        ),
        (
            "Pending",
            "FailedBinding: no persistent volumes available for this claim",
            "No volume fits it, and nothing makes one.",
        ),
        ("Pending", "", "The cluster has not provided the volume."),
    ],
)
def test_a_volume_that_is_not_bound(phase: str | None, words: str, why: str) -> None:
    failure = diagnose.unbound_volume("home-ada", phase, words, 60)
    assert failure.what == "The volume claim home-ada was not ready within 1 min." and failure.why == why


@pytest.mark.parametrize(
    ("pod", "code"),
    [
        (ended(0), 0),
        (ended(143), 143),
        (failed("Evicted"), 1),
        ({"status": {"phase": "Succeeded"}}, 0),
        (container(running={}), None),
        (waiting("ImagePullBackOff"), None),
        ({}, None),
    ],
)
def test_only_the_end_of_a_pod_has_an_exit_code(pod: dict[str, Any], code: int | None) -> None:
    assert diagnose.exit_code(pod) == code


def test_what_speaks_against_a_node() -> None:
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert diagnose.node_trouble(None) == "gone"
    assert diagnose.node_trouble({"status": {}}) == "not ready"
    assert diagnose.node_trouble({**ready, "spec": {"unschedulable": True}}) == "drained"
    assert diagnose.node_trouble({**ready, "spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]}}) is None
