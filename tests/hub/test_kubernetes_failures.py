"""Pods that cannot become a session, each made to fail for real: what happened, why, what to do, and the evidence.

Where a node is needed that fails, it is a Node object without a kubelet: pods that go there stay in creation for ever.
"""

import copy
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from typing import Any, NamedTuple

import httpx
import pytest

from tests.clusters.kubernetes import KubernetesCluster
from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User
from tests.hub.process import Hub
from tests.hub.sites import clusters_site

pytestmark = pytest.mark.kubernetes

JSON_PATCH = {"Content-Type": "application/json-patch+json"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
# Seconds from the end of a pod to its reason on the page. benchmarks/death_to_message.py holds that to three; a machine that
# runs tests is busy, and here the bound only tells a report from a time-out.
SOON = 30


class Place(NamedTuple):
    """A hub whose pods live in a namespace of its own."""

    hub: Hub
    cluster: KubernetesCluster
    namespace: str
    node: str

    def pod(self, user: User) -> dict[str, Any] | None:
        """The user's pod as the API server has it."""
        pods = self.cluster.pods(self.namespace)
        return next((p for p in pods if p["metadata"]["annotations"]["hub.jupyter.org/username"] == user.name), None)

    def pod_ends(self, path: str) -> bool:
        """Whether the pod at `path` is gone or on its way."""
        pod = self.cluster.pod(path.rpartition("/")[2], self.namespace)
        return pod is None or "deletionTimestamp" in pod["metadata"]

    def path(self, user: User) -> str:
        pod = self.pod(user)
        assert pod is not None
        return f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"


def environments(working: dict[str, Any], node: str) -> dict[str, dict[str, Any]]:
    """Broken realisations by name; each is the working one with some traits of its own."""
    far = {"node_selector": {"oberalp-node": node}, "tolerations": [{"key": "oberalp-node", "operator": "Exists"}]}
    hog = "x = bytearray(400_000_000); import time; time.sleep(600)"
    traits: dict[str, dict[str, Any]] = {
        "crash": {"cmd": ["/bin/bash", "-c", "echo No module named jupyterhub; exit 1"]},
        "exits": {"cmd": ["/bin/bash", "-c", "sleep 3; echo The licence server is down; date +ended=%s.%N; exit 3"]},
        "no-program": {"cmd": ["/opt/nowhere/server"]},
        "hog": {"cmd": [working["traits"]["cmd"][0], "-c", hog], "mem_limit": "100M", "mem_guarantee": "100M"},
        "silent": {"cmd": ["/usr/bin/sleep", "600"]},
        "no-account": {"service_account": "nobody"},
        "too-large": {"extra_resource_limits": {"nvidia.com/gpu": "64"}, "start_timeout": 8},
        "no-claim": {"volumes": [_claim("nowhere")], "volume_grace": 3},
        "unbound": {"volumes": [_claim("never")], "volume_grace": 3},
        "far": {**far, "start_timeout": 150},
    }
    made = {}
    for name, changes in traits.items():
        made[name] = copy.deepcopy(working)
        volumes = [*working["traits"]["volumes"], *changes.pop("volumes", [])]
        made[name]["traits"] |= {**changes, "volumes": volumes}
    made["no-image"] = {**working, "image": "docker.io/oberalp/never-built:1"}
    pulled = copy.deepcopy(working)  # an address of this machine on which nobody listens
    pulled["traits"]["image_pull_policy"] = "Always"
    made["no-registry"] = {**pulled, "image": "127.0.0.1:9/oberalp/never-built:1"}
    return made


def _claim(name: str) -> dict[str, Any]:
    return {"name": name, "persistentVolumeClaim": {"claimName": name}}


@pytest.fixture(scope="module")
def place(kubernetes_cluster: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with kubernetes_cluster.namespace() as namespace:
        node = f"node-of-{namespace}"
        site = clusters_site(kubernetes_cluster)
        (target,) = (t for t in site["targets"] if t["kind"] == "kubernetes")
        target |= {"namespace": namespace, "start_timeout": 60}
        working = site["environments"][0]["targets"]["kubernetes"]
        for name, realisation in environments(working, node).items():
            site["environments"].append({"name": name, "title": name, "targets": {"kubernetes": realisation}})
        hub = Hub(
            site, tmp_path_factory.mktemp("kubernetes-hub"), {"KUBECONFIG": str(kubernetes_cluster.kubeconfig)}
        ).start()
        try:
            yield Place(hub, kubernetes_cluster, namespace, node)
        finally:
            hub.close()


@pytest.fixture
def far_node(place: Place) -> Iterator[str]:
    """A node without a kubelet, for pods of the environment `far` only."""
    labels = {"oberalp-node": place.node}
    taint = {"key": "oberalp-node", "value": place.node, "effect": "NoSchedule"}
    place.cluster.request(
        "POST", "/api/v1/nodes", json={"metadata": {"name": place.node, "labels": labels}, "spec": {"taints": [taint]}}
    )
    room = {"cpu": "8", "memory": "32Gi", "pods": "50"}
    ready = {"type": "Ready", "status": "True", "reason": "Test", "message": "", "lastHeartbeatTime": _now()}
    status = {"capacity": room, "allocatable": room, "conditions": [ready]}
    path = f"/api/v1/nodes/{place.node}"
    place.cluster.request("PATCH", f"{path}/status", json={"status": status}, headers=MERGE_PATCH)
    # the node controller marks a new node as unreachable until it has seen its condition
    assert wait_for(lambda: len(place.cluster.get(path)["spec"].get("taints", [])) == 1, 30, 0.2)
    yield place.node
    try:
        place.cluster.request("DELETE", path)
    except httpx.HTTPStatusError:
        pass  # a test has taken it away


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Told(NamedTuple):
    """How a failed start ended: all messages, the page's last words, and when the reason was on the page."""

    messages: str
    last: str
    at: float


def failed_start(
    place: Place, name: str, environment: str, reason: str, meanwhile: Callable[[User], None] | None = None
) -> Told:
    """Start a session that must fail; `meanwhile` is done while it starts. Afterwards no pod is left."""
    user = place.hub.login(name)
    answer = user.post({"profile": "cpu-1", "environment": environment, "target": "kubernetes"})
    if answer.status_code == 503:  # it failed before the hub had answered
        message = answer.json()["message"]
        assert reason in message, message
        assert place.pod(user) is None
        return Told(message, message, time.time())
    assert answer.status_code in (201, 202), answer.text
    messages, at, last = [], 0.0, {}
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(meanwhile, user) if meanwhile is not None else None
        for last in user.events():
            messages.append(f"{last.get('message')} {last.get('html_message', '')}")
            if not at and reason in messages[-1]:
                at = time.time()
        if acting is not None:
            acting.result()
    assert last.get("failed"), last
    told = Told("\n".join(messages), unescape(str(last.get("html_message") or last["message"])), at)
    assert reason in told.last and at, f"{told.last}\n{told.messages}"
    assert place.pod(user) is None
    return told


# --- the container ---------------------------------------------------------------------------------------------------


def test_a_server_that_ends_at_once_shows_its_log_and_its_cause(place: Place) -> None:
    told = failed_start(place, "ramanujan", "crash", "lacks JupyterHub")
    assert "No module named jupyterhub" in told.last


def test_the_exit_of_a_server_is_on_the_page(place: Place) -> None:
    told = failed_start(place, "hardy", "exits", "exit code was 3")
    assert "The licence server is down" in told.last
    ended = re.search(r"ended=([\d.]+)", told.last)
    assert ended is not None and told.at - float(ended[1]) < SOON, told.at - float(ended[1] if ended else 0)


def test_a_program_that_is_missing_in_the_image(place: Place) -> None:
    told = failed_start(place, "littlewood", "no-program", "program is missing in the image")
    assert "/opt/nowhere/server" in told.last


def test_an_image_that_is_not_there(place: Place) -> None:
    told = failed_start(place, "mertens", "no-image", "The image is not on the node")
    assert "never-built" in told.last and "ErrImageNeverPull" in told.last


def test_an_image_that_cannot_be_pulled(place: Place) -> None:
    told = failed_start(place, "mordell", "no-registry", "The image cannot be pulled")
    assert "127.0.0.1:9" in told.last and "never-built" in told.last


def test_a_container_over_its_memory_limit(place: Place) -> None:
    told = failed_start(place, "hilbert", "hog", "used more memory")
    assert "Choose a profile with more memory" in told.last


# --- what the API server refuses -------------------------------------------------------------------------------------


def test_a_service_account_that_does_not_exist(place: Place) -> None:
    told = failed_start(place, "artin", "no-account", "service account of sessions does not exist")
    assert '"nobody"' in told.last


def test_a_quota_that_is_used_up_is_told_at_once(place: Place) -> None:
    quota = {"metadata": {"name": "none-left"}, "spec": {"hard": {"pods": "0", "requests.memory": "1"}}}
    path = f"/api/v1/namespaces/{place.namespace}/resourcequotas"
    place.cluster.request("POST", path, json=quota)
    try:
        assert wait_for(lambda: place.cluster.get(f"{path}/none-left")["status"].get("hard"), 20, 0.1)
        told = failed_start(place, "noether", "pytorch", "quota of the namespace is used up")
        assert "exceeded quota: none-left" in told.last and "Stop another session" in told.last
    finally:
        place.cluster.request("DELETE", f"{path}/none-left")
        assert wait_for(lambda: not place.cluster.get(path)["items"], 20, 0.1)


# --- waiting that leads nowhere --------------------------------------------------------------------------------------


def test_a_pod_too_large_for_every_node_waits_and_then_says_what_was_missing(place: Place) -> None:
    told = failed_start(place, "minkowski", "too-large", "cannot take the pod now: it has too few free GPUs.")
    assert "too few free GPUs; it waits" in told.messages
    assert "Insufficient nvidia.com/gpu" in told.last and "did not start within 8 s" in told.last


def test_a_volume_claim_that_does_not_exist(place: Place) -> None:
    told = failed_start(place, "weyl", "no-claim", "The volume claim nowhere was not ready")
    assert "There is no claim of that name" in told.last


def test_a_volume_claim_that_nothing_fills(place: Place) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    path = f"/api/v1/namespaces/{place.namespace}/persistentvolumeclaims"
    place.cluster.request("POST", path, json={"metadata": {"name": "never"}, "spec": claim})
    told = failed_start(place, "siegel", "unbound", "The volume claim never was not ready")
    assert "No volume fits it, and nothing makes one" in told.last


# --- pods that are taken away ----------------------------------------------------------------------------------------


def when_bound(place: Place, act: Callable[[str], None], ended: list[float]) -> Callable[[User], None]:
    """`act` on the path of the pod once it has a node; `ended` gets the time after it."""

    def meanwhile(user: User) -> None:
        assert wait_for(lambda: (place.pod(user) or {}).get("spec", {}).get("nodeName"), 30, 0.1)
        act(place.path(user))
        ended.append(time.time())

    return meanwhile


def when_running(place: Place, act: Callable[[str], None], ended: list[float]) -> Callable[[User], None]:
    """The same once its container runs."""

    def meanwhile(user: User) -> None:
        assert wait_for(lambda: (place.pod(user) or {}).get("status", {}).get("phase") == "Running", 30, 0.1)
        act(place.path(user))
        ended.append(time.time())

    return meanwhile


def evict(place: Place) -> Callable[[str], None]:
    def act(path: str) -> None:
        body = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": path.rpartition("/")[2]}}
        place.cluster.request("POST", f"{path}/eviction", json=body)

    return act


def test_a_pod_that_someone_deletes(place: Place, far_node: str) -> None:
    ended: list[float] = []
    act = when_bound(place, lambda path: place.cluster.request("DELETE", path), ended)
    told = failed_start(place, "jacobi", "far", "deleted or evicted by someone else", act)
    assert told.at - ended[0] < SOON and "Start again" in told.last


def test_a_pod_that_is_evicted_through_the_api(place: Place) -> None:
    ended: list[float] = []
    told = failed_start(
        place, "abel", "silent", "deleted or evicted by someone else", when_running(place, evict(place), ended)
    )
    assert told.at - ended[0] < SOON, told.at - ended[0]


def test_a_pod_that_its_node_evicts(place: Place, far_node: str) -> None:
    """The status that a kubelet short of memory writes, written here through the API: this node has no kubelet."""
    ended: list[float] = []
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    act = when_bound(
        place,
        lambda path: place.cluster.request("PATCH", f"{path}/status", json={"status": status}, headers=MERGE_PATCH),
        ended,
    )
    told = failed_start(place, "galois", "far", "ran short of resources and evicted it", act)
    assert told.at - ended[0] < SOON and "low on resource: memory" in told.last


def test_a_pod_whose_node_is_taken_out_of_service(place: Place, far_node: str) -> None:
    ended: list[float] = []

    def drain(path: str) -> None:
        taint = {"key": "maintenance", "value": "now", "effect": "NoExecute"}
        body = [{"op": "add", "path": "/spec/taints/-", "value": taint}]
        place.cluster.request("PATCH", f"/api/v1/nodes/{far_node}", json=body, headers=JSON_PATCH)
        assert wait_for(lambda: place.pod_ends(path), 30, 0.05)

    told = failed_start(place, "cauchy", "far", "node was taken out of service", when_bound(place, drain, ended))
    assert told.at - ended[0] < SOON, told


def test_a_pod_whose_node_is_lost(place: Place, far_node: str) -> None:
    """Told when the node is looked for, long before Kubernetes clears its pods away."""
    ended: list[float] = []
    act = when_bound(place, lambda path: place.cluster.request("DELETE", f"/api/v1/nodes/{far_node}"), ended)
    told = failed_start(place, "lagrange", "far", "node is no longer part of the cluster", act)
    assert told.at - ended[0] < 2 * SOON, told.at - ended[0]
