"""Nodes, taints and quotas of a cluster -> what a session can have now: literal documents of the API."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridspawner.capacity import Quota
from hybridspawner.targets.kubernetes.capacity import nodes_from, quota_from, tolerates
from tests.clusters.kubernetes import GPU, KubernetesCluster


def node(name: str = "n", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"pool": "gpu"}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "8", "memory": "16G", GPU: "4", "pods": "3"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(requests: dict[str, str], phase: str = "Running", **spec: Any) -> dict[str, Any]:
    containers = [{"resources": {"requests": requests}}]
    return {"spec": {"nodeName": "n", "containers": containers, **spec}, "status": {"phase": phase}}


def state(node: dict[str, Any], *tolerations: dict[str, str]) -> tuple[str, bool]:
    (read,) = nodes_from([node], [], GPU, tolerations=tolerations)
    return read.state, read.usable


TAINT = {"key": "only", "value": "physics", "effect": "NoSchedule"}


def test_why_a_node_is_out_of_service() -> None:
    unready = {**node(), "status": {**node()["status"], "conditions": [{"type": "Ready", "status": "Unknown"}]}}
    assert state(node()) == ("", True)
    assert state(unready) == ("down", False)
    assert state(node(unschedulable=True)) == ("drained", False)
    assert state(node(taints=[TAINT])) == ("drained", False)
    assert state(node(taints=[{**TAINT, "effect": "PreferNoSchedule"}])) == ("", True)


def test_a_taint_that_the_site_tolerates_is_none() -> None:
    assert state(node(taints=[TAINT]), {"key": "only", "operator": "Exists"}) == ("", True)
    assert state(node(taints=[TAINT]), {"key": "only", "value": "physics"}) == ("", True)
    assert state(node(taints=[TAINT]), {"key": "only", "value": "maths"}) == ("drained", False)
    assert not tolerates({"key": "only", "operator": "Exists", "effect": "NoExecute"}, TAINT)
    assert tolerates({"operator": "Exists"}, TAINT)


def test_a_node_that_is_full_of_pods_takes_no_more_but_is_in_service() -> None:
    pods = [pod({}) for _ in range(3)]
    (read,) = nodes_from([node()], [*pods, pod({}, "Succeeded")], GPU)
    assert (read.state, read.usable) == ("", False)


def test_only_the_nodes_of_the_targets_selector_count() -> None:
    assert len(nodes_from([node()], [], GPU, {"pool": "gpu"})) == 1
    assert nodes_from([node()], [], GPU, {"pool": "cpu"}) == ()


def test_init_containers_side_cars_and_overhead_count_as_the_scheduler_counts() -> None:
    init = [
        {"resources": {"requests": {"cpu": "4"}}},
        {"restartPolicy": "Always", "resources": {"requests": {"memory": "1G"}}},
    ]
    (read,) = nodes_from([node()], [pod({"cpu": "1", "memory": "2G"}, initContainers=init, overhead={"cpu": "1"})], GPU)
    assert read.cpus_free == 3 and read.memory_gb_free == pytest.approx(13)


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {"spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


def test_what_a_quota_leaves() -> None:
    left = quota_from(
        [
            quota(
                {"pods": "5", "limits.cpu": "16", "requests.memory": "64G", f"requests.{GPU}": "4"},
                {"pods": "2", f"requests.{GPU}": "3"},
            )
        ],
        GPU,
    )
    assert left == Quota(sessions=3, cpus=16, memory_gb=64, gpus=1)


def test_the_tightest_of_several_quotas_counts_and_none_is_below_zero() -> None:
    quotas = [
        quota({"count/pods": "9", "limits.memory": "8G"}, {"count/pods": "10"}),
        quota({"pods": "4", "requests.memory": "32G"}, {"pods": "1"}),
    ]
    assert quota_from(quotas, GPU) == Quota(sessions=0, memory_gb=8)


def test_a_quota_of_requested_cores_limits_the_number_of_sessions() -> None:
    assert quota_from([quota({"requests.cpu": "2"}, {"requests.cpu": "700m"})], GPU) == Quota(sessions=2)
    assert quota_from([quota({"cpu": "2"})], GPU, cpu_guarantee=1) == Quota(sessions=2)


def test_quotas_of_other_pods_or_other_things_do_not_count() -> None:
    assert quota_from([], GPU) is None
    assert quota_from([quota({"persistentvolumeclaims": "3"})], GPU) is None
    assert quota_from([quota({"pods": "0"}, scopes=["BestEffort"])], GPU) is None
    assert quota_from([quota({"pods": "0"}, scopeSelector={"matchExpressions": []})], GPU) is None
    assert quota_from([quota({"pods": "0"}, scopes=["Terminating"])], GPU) == Quota(sessions=0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 80)), min_size=1, max_size=4))
def test_another_quota_never_leaves_more(amounts: list[tuple[int, int]]) -> None:
    quotas = [quota({"pods": str(hard)}, {"pods": str(used)}) for hard, used in amounts]
    all_of_them, first = quota_from(quotas, GPU), quota_from(quotas[:1], GPU)
    assert all_of_them is not None and first is not None
    assert 0 <= (all_of_them.sessions or 0) <= (first.sessions or 0)


@pytest.mark.kubernetes
async def test_a_real_cluster_is_read(kubernetes_cluster: KubernetesCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridspawner.targets.kubernetes import capacity

    monkeypatch.setenv("KUBECONFIG", str(kubernetes_cluster.kubeconfig))
    with kubernetes_cluster.namespace() as namespace:
        path = f"/api/v1/namespaces/{namespace}/resourcequotas"
        hard = {"pods": "7", f"requests.{GPU}": "2"}
        kubernetes_cluster.request("POST", path, json={"metadata": {"name": "some"}, "spec": {"hard": hard}})
        reading = await capacity.read(namespace, GPU, {})
        assert sum(n.gpus.get("", 0) for n in reading.nodes) == kubernetes_cluster.allocatable_gpus()
        assert all(n.state == "" for n in reading.nodes if n.usable)
        assert reading.quota == Quota(sessions=7, gpus=2)
