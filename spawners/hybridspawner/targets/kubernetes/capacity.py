"""What a namespace of a cluster can take now: nodes minus the requests of their pods (as the scheduler counts), quotas.

Three lists, asked together, for all users (the board keeps the answer for some seconds). Rights: `list` on nodes and on
pods of all namespaces, without which nothing is known; `list` on resourcequotas, without which no quota is seen.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from kubernetes_asyncio.client.exceptions import ApiException
from kubespawner.clients import load_config, shared_client

from ...capacity import NodeCapacity, Quota, Reading

GUARANTEED_CPUS = 0.5
"""What a session requests of its cores unless the site says otherwise: notebooks idle, so cores are shared."""

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
_OUR_SCOPES = frozenset({"Terminating", "NotBestEffort"})  # our pods have a deadline and requests

log = logging.getLogger(__name__)


def quantity(text: str) -> float:
    """A Kubernetes quantity (`500m`, `2Gi`, `4`, `1e3`) as a number; ValueError for anything else."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or (match["suffix"] not in _SCALE and match["suffix"] not in _BINARY):
        raise ValueError(f"{text!r} is not a Kubernetes quantity")
    return float(match["number"]) * (
        _BINARY[match["suffix"]] if match["suffix"] in _BINARY else _SCALE[match["suffix"]]
    )


# --- nodes -----------------------------------------------------------------------------------------------------------


def nodes_from(
    nodes: Iterable[dict[str, Any]],
    pods: Iterable[dict[str, Any]],
    gpu_resource: str,
    selector: Mapping[str, str] | None = None,
    tolerations: Iterable[Mapping[str, Any]] = (),
) -> tuple[NodeCapacity, ...]:
    """Capacity from the JSON of nodes and pods; only nodes with the labels of `selector`.

    Usable is a node that is ready, not cordoned, without a taint that sessions do not tolerate, with room for a pod.
    """
    used: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for pod in pods:
        name = pod["spec"].get("nodeName")
        if not name or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        used[name]["pods"] += 1
        for resource, amount in _requests(pod["spec"]).items():
            used[name][resource] += amount
    tolerated = list(tolerations)
    chosen = [node for node in nodes if _has_labels(node, selector or {})]
    return tuple(_node(node, used[node["metadata"]["name"]], gpu_resource, tolerated) for node in chosen)


def _node(
    node: dict[str, Any], used: Mapping[str, float], gpu_resource: str, tolerations: list[Mapping[str, Any]]
) -> NodeCapacity:
    status = node.get("status") or {}
    have = {k: quantity(str(v)) for k, v in (status.get("allocatable") or {}).items()}
    gpus = int(have.get(gpu_resource, 0))
    state = _state(node, tolerations)
    return NodeCapacity(
        name=node["metadata"]["name"],
        cpus=int(have.get("cpu", 0)),
        cpus_free=have.get("cpu", 0) - used["cpu"],
        memory_gb=have.get("memory", 0) / 1e9,
        memory_gb_free=(have.get("memory", 0) - used["memory"]) / 1e9,
        gpus={"": gpus} if gpus else {},
        gpus_free={"": max(0, gpus - int(used[gpu_resource]))} if gpus else {},
        usable=not state and have.get("pods", 110) > used["pods"],
        state=state,
    )


def _state(node: dict[str, Any], tolerations: list[Mapping[str, Any]]) -> str:
    """down: it is not ready; drained: it is cordoned, or tainted against sessions; empty: in service."""
    conditions = (node.get("status") or {}).get("conditions") or []
    if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
        return "down"
    taints = [t for t in node["spec"].get("taints") or [] if t.get("effect") in _BLOCKING]
    if node["spec"].get("unschedulable") or not all(any(tolerates(o, t) for o in tolerations) for t in taints):
        return "drained"
    return ""


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Whether one toleration (its JSON) covers one taint, by the scheduler's rules."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
    if not key:
        return bool(operator == "Exists")
    if key != taint.get("key"):
        return False
    return bool(operator == "Exists" or (toleration.get("value") or "") == (taint.get("value") or ""))


def _has_labels(node: dict[str, Any], selector: Mapping[str, str]) -> bool:
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def _requests(spec: dict[str, Any]) -> dict[str, float]:
    """What the scheduler reserves for a pod: its containers together, or its largest init container if that is more."""
    total: dict[str, float] = defaultdict(float)
    init = spec.get("initContainers") or []
    sidecars = [container for container in init if container.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or []), *sidecars]:
        for resource, amount in ((container.get("resources") or {}).get("requests") or {}).items():
            total[resource] += quantity(str(amount))
    for container in init:
        for resource, amount in ((container.get("resources") or {}).get("requests") or {}).items():
            total[resource] = max(total[resource], quantity(str(amount)))
    for resource, amount in (spec.get("overhead") or {}).items():
        total[resource] += quantity(str(amount))
    return total


# --- quotas ----------------------------------------------------------------------------------------------------------


def quota_from(
    quotas: Iterable[dict[str, Any]], gpu_resource: str, cpu_guarantee: float = GUARANTEED_CPUS
) -> Quota | None:
    """What all ResourceQuotas (their JSON) of a namespace together leave; None when none of them limits sessions.

    `cpu_guarantee` is what a session requests of its cores: a quota of requested cores limits the number of sessions.
    Quotas for other kinds of pods (by scope or priority class) are left out.
    """
    left: dict[str, float] = {}
    for quota in quotas:
        spec, status = quota.get("spec") or {}, quota.get("status") or {}
        if not _OUR_SCOPES.issuperset(spec.get("scopes") or []) or spec.get("scopeSelector"):
            continue
        used = status.get("used") or {}
        for resource, hard in (status.get("hard") or spec.get("hard") or {}).items():
            rest = max(0.0, quantity(str(hard)) - quantity(str(used.get(resource, 0))))
            left[resource] = min(rest, left.get(resource, rest))
    sessions = _least(left, "pods", "count/pods")
    requested = _least(left, "requests.cpu", "cpu")
    if requested is not None and cpu_guarantee > 0:
        by_cpu = requested // cpu_guarantee
        sessions = by_cpu if sessions is None else min(sessions, by_cpu)
    memory = _least(left, "requests.memory", "memory", "limits.memory")
    gpus = _least(left, f"requests.{gpu_resource}", f"limits.{gpu_resource}")
    quota_left = Quota(
        sessions=None if sessions is None else int(sessions),
        cpus=left.get("limits.cpu"),
        memory_gb=None if memory is None else memory / 1e9,
        gpus=None if gpus is None else int(gpus),
    )
    return None if quota_left == Quota() else quota_left


def _least(left: Mapping[str, float], *resources: str) -> float | None:
    return min((left[resource] for resource in resources if resource in left), default=None)


# --- the reading -----------------------------------------------------------------------------------------------------


async def read(namespace: str, gpu_resource: str, traits: Mapping[str, Any]) -> Reading:
    """Ask the cluster. `traits` are the target's, of which node_selector, tolerations and cpu_guarantee count here."""
    load_config()
    core = shared_client("CoreV1Api")
    running = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"  # who waits holds nothing
    nodes, pods, quotas = await asyncio.gather(
        _items(core.list_node),
        _items(core.list_pod_for_all_namespaces, field_selector=running),
        _quotas(core, namespace),
    )
    selector, tolerations = traits.get("node_selector"), traits.get("tolerations")
    selector = selector if isinstance(selector, Mapping) else {}
    tolerations = tolerations if isinstance(tolerations, list) else []
    guarantee = traits.get("cpu_guarantee")
    guarantee = float(guarantee) if isinstance(guarantee, int | float) else GUARANTEED_CPUS
    return Reading(
        nodes_from(nodes, pods, gpu_resource, selector, tolerations), quota_from(quotas, gpu_resource, guarantee)
    )


async def _items(call: Any, **arguments: Any) -> list[dict[str, Any]]:
    """The items of a list as JSON, from the server's cache (version 0): no load on its store."""
    answer = await call(**arguments, resource_version="0", _request_timeout=5, _preload_content=False)
    if answer.status != 200:
        raise ApiException(status=answer.status, reason=(await answer.text()).strip() or answer.reason)
    items: list[dict[str, Any]] = json.loads(await answer.read())["items"]
    return items


async def _quotas(core: Any, namespace: str) -> list[dict[str, Any]]:
    try:
        return await _items(core.list_namespaced_resource_quota, namespace=namespace)
    except ApiException as error:
        if error.status != 403:
            raise
        log.debug("The quotas of %s may not be read: %s", namespace, error.reason)
        return []
