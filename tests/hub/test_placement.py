"""What the spawn page is told by a real cluster: free, waiting, reserved, silent; and how little it asks the cluster."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters.kubernetes import KubernetesCluster
from tests.clusters.slurm import SlurmCluster
from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User
from tests.hub.process import Hub
from tests.hub.sites import clusters_site


def offers(user: User, **options: str) -> dict[str, Any]:
    answer = user.api.get("/hub/api/hybridspawner/offers", params={"profile": "gpu-4", **options})
    assert answer.status_code == 200, answer.text
    return answer.json()


def slurm(user: User, **options: str) -> dict[str, Any]:
    return next(o for o in offers(user, **options)["offers"] if o["target"] == "slurm")


@pytest.fixture
def full(slurm_cluster: SlurmCluster) -> Iterator[None]:
    """All GPUs are taken for 25 minutes."""
    argv = ["sbatch", "--parsable", "--nodes=4", "--gres=gpu:gh200:4", "--time=25", "--output=/dev/null"]
    job = slurm_cluster.run(*argv, "--wrap=sleep 600").stdout.strip()
    assert wait_for(lambda: slurm_cluster.job_state(job) == "RUNNING", 20, 0.2)
    yield
    slurm_cluster.run("scancel", job)
    assert wait_for(lambda: not slurm_cluster.run("squeue", "--noheader").stdout.strip(), 20, 0.2)


def requests_of(cluster: SlurmCluster, kind: str) -> int:
    """How often slurmctld has answered this kind of request."""
    found = re.search(rf"{kind}\s*\(\s*\d+\)\s+count:(\d+)", cluster.run("sdiag").stdout)
    return int(found[1]) if found else 0


@pytest.mark.slurm
def test_an_estimate_is_the_scheduler_s_and_is_asked_once_for_many_pages(
    hub: Hub, slurm_cluster: SlurmCluster, full: None
) -> None:
    users = [hub.login(f"estimate-{n}") for n in range(3)]
    assert wait_for(lambda: slurm(users[0])["fit"] == "later", 20, 0.5)
    before = requests_of(slurm_cluster, "REQUEST_JOB_WILL_RUN")
    seen = [slurm(user, runtime="00:07:00") for user in users * 5]
    assert all(20 * 60 < o["starts_in"] <= 25 * 60 and "estimated start in about" in o["words"] for o in seen)
    assert requests_of(slurm_cluster, "REQUEST_JOB_WILL_RUN") - before == 1
    assert "(an estimate)" in offers(users[0])["reason"]


@pytest.mark.slurm
def test_a_reservation_s_nodes_are_for_those_who_name_it(hub: Hub, slurm_cluster: SlurmCluster) -> None:
    user = hub.login("reserved")
    what = ["reservationname=course", "users=root", "nodes=nid000003", "starttime=now", "duration=60"]
    slurm_cluster.run("scontrol", "create", "reservation", *what)
    try:
        assert wait_for(lambda: slurm(user)["words"] == "12 of 16 GH200 GPUs free now; 1 node is reserved", 30, 1)
        assert slurm(user, reservation="course")["words"] == "4 of 4 GH200 GPUs free now in reservation course"
    finally:
        slurm_cluster.run("scontrol", "delete", "reservationname=course")


@pytest.mark.slurm
def test_a_silent_scheduler_is_said_and_holds_nothing_back(hub: Hub, slurm_cluster: SlurmCluster) -> None:
    user = hub.login("silence")
    slurm_cluster.stop_controller()
    try:
        assert wait_for(lambda: "does not answer" in slurm(user)["words"], 60, 0.5)
        began = time.monotonic()
        offer = next(o for o in offers(user, profile="cpu-1")["offers"] if o["target"] == "local")
        assert offer["words"] == "starts at once" and time.monotonic() - began < 8
        assert user.browser.get("/hub/spawn").status_code == 200
    finally:
        slurm_cluster.start_controller()
    assert wait_for(lambda: slurm(user)["fit"] == "now", 60, 0.5)


@pytest.mark.kubernetes
def test_a_namespace_s_quota_is_said_and_makes_one_wait(kubernetes_cluster: KubernetesCluster, tmp_path: Path) -> None:
    with kubernetes_cluster.namespace() as namespace:
        quota = {"metadata": {"name": "one"}, "spec": {"hard": {"requests.nvidia.com/gpu": "0", "pods": "3"}}}
        kubernetes_cluster.request("POST", f"/api/v1/namespaces/{namespace}/resourcequotas", json=quota)
        site = clusters_site(kubernetes_cluster)
        next(t for t in site["targets"] if t["name"] == "kubernetes")["namespace"] = namespace
        hub = Hub(site, tmp_path / "hub", {"KUBECONFIG": str(kubernetes_cluster.kubeconfig)}).start()
        try:
            user = hub.login("quota")
            assert wait_for(lambda: "its quota leaves no GPUs" in offers(user, profile="gpu-1")["reason"], 30, 0.5)
            small = offers(user, profile="cpu-1")
            assert small["chosen"] == "kubernetes" and small["offers"][0]["fit"] == "now"
        finally:
            hub.close()
