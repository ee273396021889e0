"""What the nodes of a cluster have free: allocatable minus the requests of their pods, as the scheduler counts."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from kubespawner.clients import load_config, shared_client

from ...capacity import NodeCapacity

_QUANTITY = re.compile(r"(?P<number>[0-9.]+(?:[eE][+-]?[0-9]+)?)(?P<suffix>[numkKMGTPE]?i?)", re.ASCII)
_SCALE = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1.0,
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_BLOCKING = ("NoSchedule", "NoExecute")


def quantity(text: str) -> float:
    """A Kubernetes quantity (`500m`, `2Gi`, `4`, `1e3`) as a number; ValueError for anything else."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or (match["suffix"] not in _SCALE and match["suffix"] not in _BINARY):
        raise ValueError(f"{text!r} is not a Kubernetes quantity")
    return float(match["number"]) * (
        _BINARY[match["suffix"]] if match["suffix"] in _BINARY else _SCALE[match["suffix"]]
    )


def nodes_from(nodes: list[dict[str, Any]], pods: list[dict[str, Any]], gpu_resource: str) -> tuple[NodeCapacity, ...]:
    """Capacity from the JSON of nodes and pods. Nodes that are cordoned, tainted or not ready are not usable."""
    used: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for pod in pods:
        name = pod["spec"].get("nodeName")
        if not name or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        for resource, amount in _requests(pod["spec"]).items():
            used[name][resource] += amount
    result = []
    for node in nodes:
        name = node["metadata"]["name"]
        have = {k: quantity(str(v)) for k, v in (node.get("status", {}).get("allocatable") or {}).items()}
        taken = used[name]
        ready = any(
            c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions") or []
        )
        tainted = any(t.get("effect") in _BLOCKING for t in node["spec"].get("taints") or [])
        gpus = int(have.get(gpu_resource, 0))
        free_pods = have.get("pods", 110) - sum(p["spec"].get("nodeName") == name for p in pods) > 0
        result.append(
            NodeCapacity(
                name,
                int(have.get("cpu", 0)),
                have.get("cpu", 0) - taken["cpu"],
                have.get("memory", 0) / 1e9,
                (have.get("memory", 0) - taken["memory"]) / 1e9,
                {"": gpus} if gpus else {},
                {"": gpus - int(taken[gpu_resource])} if gpus else {},
                ready and not tainted and free_pods and not node["spec"].get("unschedulable", False),
            )
        )
    return tuple(result)


def _requests(spec: dict[str, Any]) -> dict[str, float]:
    """What the scheduler reserves for a pod: its containers together, or its largest init container if that is more."""
    total: dict[str, float] = defaultdict(float)
    for container in spec.get("containers") or []:
        for resource, amount in ((container.get("resources") or {}).get("requests") or {}).items():
            total[resource] += quantity(str(amount))
    for container in spec.get("initContainers") or []:
        for resource, amount in ((container.get("resources") or {}).get("requests") or {}).items():
            total[resource] = max(total[resource], quantity(str(amount)))
    return total


async def read(gpu_resource: str) -> tuple[NodeCapacity, ...]:
    """Ask the cluster. Needs `list` on nodes and pods; without it the API's error is raised, and nothing is known."""
    load_config()
    core = shared_client("CoreV1Api")
    nodes = await core.list_node(_request_timeout=5)
    pods = await core.list_pod_for_all_namespaces(
        field_selector="status.phase!=Succeeded,status.phase!=Failed", _request_timeout=5
    )
    as_json = core.api_client.sanitize_for_serialization
    return nodes_from([as_json(n) for n in nodes.items], [as_json(p) for p in pods.items], gpu_resource)
