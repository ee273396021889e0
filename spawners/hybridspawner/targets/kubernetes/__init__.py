"""The Kubernetes target: capacity of the cluster's nodes and quotas, and a session as a pod."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import Any

from jupyterhub.spawner import Spawner
from kubespawner.clients import load_config, shared_client

from ...capacity import Access, Reading
from ...endpoints import session_variables
from ...site import KubernetesTarget
from ..base import Launch, set_traits
from . import capacity
from .pod import MARK_LABEL, SessionPod, answer, hub_of
from .reflector import reflector_age, silent_for

_STRAY_GRACE = 1
_STRAY_SECONDS = 25.0


class Kubernetes:
    """`Target` for one namespace of one cluster."""

    def __init__(self, spec: KubernetesTarget) -> None:
        self.name, self._spec = spec.name, spec

    async def read(self) -> Reading:
        return await capacity.read(self._spec.namespace, self._spec.gpu_resource, self._spec.traits)

    async def access(self, username: str) -> Access:
        return Access()

    async def estimate(self, launch: Launch, username: str) -> datetime | None:
        return None  # Kubernetes has no queue: a pod fits now, or nobody knows when

    async def strays(self, hub: str, known: Collection[str]) -> list[str]:
        load_config()
        core = shared_client("CoreV1Api")
        listed = await answer(
            core.list_namespaced_pod(self._spec.namespace, label_selector=MARK_LABEL, _request_timeout=10)
        )
        strays = []
        for pod in listed.items if listed is not None else []:
            mark = pod.metadata.labels[MARK_LABEL]
            if hub_of(mark) == hub and mark not in known:
                strays.append(SessionPod(core, self._spec.namespace, pod.metadata.name, mark, pod.metadata.uid))
        gone = await asyncio.gather(*(stray.remove(_STRAY_GRACE, _STRAY_SECONDS) for stray in strays))
        return [f"pod {stray.namespace}/{stray.name}" for stray, ended in zip(strays, gone, strict=True) if ended]

    def reflector_age(self) -> float | None:
        """Seconds since the API server last told us about pods; None before the first session. For metrics."""
        return reflector_age(self._spec.namespace)

    def silent_for(self) -> float | None:
        return silent_for(self._spec.namespace)

    def child_class(self) -> type[Spawner]:
        from .spawner import KubernetesSessionSpawner

        return KubernetesSessionSpawner

    def prepare(self, child: Any, launch: Launch | None) -> None:
        if not child.enable_user_namespaces:  # else KubeSpawner has worked out the user's own
            child.namespace = self._spec.namespace
        child.profile_list = []  # the request is already validated and is turned into traits below
        child.user_options = {}
        child.start_timeout = self._spec.start_timeout
        if launch is None:
            set_traits(child, self._spec.traits, f"target {self.name}")  # how to reach and end a pod is among them
            return
        resources, realisation = launch.resources, launch.realisation
        child.cpu_limit = float(resources.cpus)
        child.cpu_guarantee = min(capacity.GUARANTEED_CPUS, float(resources.cpus))
        child.mem_limit = child.mem_guarantee = int(resources.memory_gb * 1e9)
        if resources.gpus:
            gpus = {self._spec.gpu_resource: str(resources.gpus)}
            child.extra_resource_limits = {**child.extra_resource_limits, **gpus}
            child.extra_resource_guarantees = {**child.extra_resource_guarantees, **gpus}
        if realisation.image:
            child.image = realisation.image
        # KubeSpawner fills in {username} and the like: the braces of JSON are doubled, those of the site file are not
        told = session_variables(launch.endpoints)
        told = {name: value.replace("{", "{{").replace("}", "}}") for name, value in told.items()}
        child.environment = {**child.environment, **told, **realisation.variables}
        # what was asked for is what is given: the pod ends with its run time, as a Slurm job does
        child.extra_pod_config = {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": launch.request.seconds,
            **child.extra_pod_config,
        }
        set_traits(child, self._spec.traits, f"target {self.name}")
        set_traits(child, realisation.traits, f"environment {launch.request.environment} on {self.name}")
