"""Pods across cancelled starts, hubs that are killed, and API servers that are away or hang: none lost, none left.

The hub reaches the API server through a forwarder that can be cut, frozen and slowed; the cluster itself serves on.
Sessions are a small HTTP server instead of JupyterLab, so that many start in seconds.
"""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.clusters.kubernetes import KubernetesCluster
from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User
from tests.hub.forwarder import Forwarder
from tests.hub.process import Hub
from tests.hub.sites import clusters_site

pytestmark = pytest.mark.kubernetes

SERVER = """
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("X-JupyterHub-Version", "6"); self.end_headers(); self.wfile.write(b"{}")
http.server.ThreadingHTTPServer(("0.0.0.0", 8888), Answer).serve_forever()
"""
RUNNING = {"profile": "cpu-1", "target": "kubernetes"}
WAITING = {**RUNNING, "environment": "waiting"}


class Place(NamedTuple):
    """A hub behind a forwarder, its pods in a namespace of its own."""

    hub: Hub
    cluster: KubernetesCluster
    namespace: str
    forwarder: Forwarder

    def pods(self) -> dict[str, dict[str, Any]]:
        """The session pods by user name, ones that are going included."""
        pods = self.cluster.pods(self.namespace)
        return {p["metadata"]["annotations"]["hub.jupyter.org/username"]: p for p in pods}


@pytest.fixture
def place(kubernetes_cluster: KubernetesCluster, tmp_path: Path) -> Iterator[Place]:
    server = str(kubernetes_cluster._http.base_url)
    with kubernetes_cluster.namespace() as namespace, Forwarder(server) as forwarder:
        site = clusters_site(kubernetes_cluster)
        (target,) = (t for t in site["targets"] if t["kind"] == "kubernetes")
        target["namespace"] = namespace
        working = site["environments"][0]["targets"]["kubernetes"]
        working["traits"] |= {"cmd": [working["traits"]["cmd"][0], "-c", SERVER]}
        waiting = {**working, "traits": {**working["traits"], "node_selector": {"nowhere": namespace}}}
        site["environments"].append({"name": "waiting", "title": "Waits", "targets": {"kubernetes": waiting}})
        kubeconfig = forwarder.kubeconfig(kubernetes_cluster.kubeconfig, tmp_path)
        hub = Hub(site, tmp_path / "hub", {"KUBECONFIG": str(kubeconfig)}).start()
        try:
            yield Place(hub, kubernetes_cluster, namespace, forwarder)
        finally:
            forwarder.heal()
            hub.close()


def gone(place: Place, user: User) -> bool:
    return user.model() is None and user.name not in place.pods()


def test_a_start_cancelled_at_any_instant_leaves_no_pod(place: Place) -> None:
    instants = random.Random(3)
    place.forwarder.delay = 0.3  # so that requests are under way when the cancel comes
    users = [place.hub.login(f"zuse{i}") for i in range(4)]
    for _ in range(4):
        for user in users:
            assert user.post(RUNNING).status_code in (201, 202)
        for user in users:
            time.sleep(instants.uniform(0, 0.8))  # the instant is the point of the test
            assert user.api.delete(f"/hub/api/users/{user.name}/server").status_code in (202, 204)
        for user in users:
            assert wait_for(lambda user=user: gone(place, user), 60, 0.2), (user.model(), place.pods().keys())
    assert "500 DELETE" not in place.hub.log and "500 POST" not in place.hub.log


def test_a_pod_of_an_earlier_session_is_gone_before_the_next_one_starts(place: Place) -> None:
    user = place.hub.login("perlis")
    user.start(RUNNING)
    first = place.pods()["perlis"]
    user.stop()
    other = {**first["metadata"]["labels"], "oberalp/mark": first["metadata"]["labels"]["oberalp/mark"][:-4] + "0000"}
    metadata = {"name": first["metadata"]["name"], "labels": other, "annotations": first["metadata"]["annotations"]}
    spec = {k: first["spec"][k] for k in ("containers", "volumes", "restartPolicy")}
    place.cluster.create_pod(
        {"metadata": metadata, "spec": spec | {"automountServiceAccountToken": False}}, place.namespace
    )
    user.start(RUNNING)
    assert place.pods()["perlis"]["metadata"]["labels"]["oberalp/mark"] != other["oberalp/mark"]
    user.stop()
    assert place.pods() == {}


@pytest.mark.timeout(300)
def test_a_hub_that_is_killed_with_starts_in_flight_adopts_them_or_leaves_no_pod(place: Place) -> None:
    instants = random.Random(5)
    running, waiting = place.hub.login("runs"), place.hub.login("waits")
    running.start(RUNNING)
    waiting.post(WAITING)
    assert wait_for(lambda: "waits" in place.pods(), 20, 0.1)
    kept = {name: place.pods()[name]["metadata"]["uid"] for name in ("runs", "waits")}
    place.forwarder.delay = 0.2
    for i in range(3):
        starting = [place.hub.login(f"turing{i}"), place.hub.login(f"church{i}")]
        for user in starting:
            user.post(RUNNING)
        time.sleep(instants.uniform(0, 1.5))
        place.hub.stop(signal.SIGKILL)
        place.hub.start()
        for user in starting:
            assert wait_for(lambda user=user: (user.model() or {"ready": True}).get("ready"), 60, 0.2), user.model()
        for user in starting:
            assert wait_for(lambda user=user: (user.model() is None) == (user.name not in place.pods()), 60, 0.5), (
                user.model(),
                place.pods().keys(),
            )
        for user in starting:
            if user.model() is not None:
                user.stop()
    place.forwarder.delay = 0.0
    assert {name: place.pods()[name]["metadata"]["uid"] for name in kept} == kept
    assert (running.model() or {}).get("ready")
    # the pod that waited gets its node, and its session is ready without anybody asking
    (node,) = [n["metadata"]["name"] for n in place.cluster.nodes() if n["metadata"]["name"] == "node1"]
    label(place.cluster, node, "nowhere", place.namespace)
    try:
        assert wait_for(lambda: (waiting.model() or {}).get("ready"), 60, 0.2), place.hub.log[-3000:]
    finally:
        label(place.cluster, node, "nowhere", None)
    running.stop()
    waiting.stop()
    assert place.pods() == {}


def label(cluster: KubernetesCluster, node: str, key: str, value: str | None) -> None:
    cluster.request(
        "PATCH",
        f"/api/v1/nodes/{node}",
        json={"metadata": {"labels": {key: value}}},
        headers={"Content-Type": "application/merge-patch+json"},
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_an_api_server_that_is_away_ends_no_session_and_loses_no_pod(place: Place, how: str) -> None:
    user, leaving, waiting = (place.hub.login(name) for name in ("bauer", "rutishauser", "samelson"))
    user.start(RUNNING)
    leaving.start(RUNNING)
    waiting.post(WAITING)
    assert wait_for(lambda: "samelson" in place.pods(), 20, 0.1)
    getattr(place.forwarder, how)()
    try:
        assert wait_for(lambda: "Kubernetes does not answer about pods" in place.hub.log, 60, 0.2)
        assert leaving.api.delete("/hub/api/users/rutishauser/server").status_code in (202, 204)
        time.sleep(25)  # longer than a poll of the hub takes
        assert (user.model() or {}).get("ready")
        assert user.api.get(f"/user/{user.name}/api").status_code == 200
        assert "rutishauser" in place.pods()
    finally:
        place.forwarder.heal()
    assert wait_for(lambda: "Kubernetes answers again" in place.hub.log, 30, 0.2)
    if leaving.model() is not None:
        leaving.stop(seconds=120)
    assert wait_for(lambda: "rutishauser" not in place.pods(), 120, 0.5), place.hub.log[-3000:]
    assert (user.model() or {}).get("ready")
    events = []
    waiting.api.delete("/hub/api/users/samelson/server")
    assert wait_for(lambda: gone(place, waiting), 60, 0.2), events
    user.stop()
    assert wait_for(lambda: place.pods() == {}, 30, 0.2)


def test_strays_of_a_hub_that_lost_its_records_are_found_by_their_mark(place: Place) -> None:
    user = place.hub.login("wirth")
    user.start(RUNNING)
    place.hub.stop()
    (place.hub.directory / "state" / "jupyterhub.sqlite").unlink()
    place.hub.start()
    assert wait_for(lambda: place.pods() == {}, 90, 0.5), place.hub.log[-2000:]
