"""The Kubernetes target: capacity of the cluster's nodes, and a session as a pod."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from jupyterhub.spawner import Spawner

from ...capacity import Access, Reading
from ...site import KubernetesTarget
from ..base import Launch, set_traits
from . import capacity


class Kubernetes:
    """`Target` for one cluster."""

    def __init__(self, spec: KubernetesTarget) -> None:
        self.name, self._spec = spec.name, spec

    async def read(self) -> Reading:
        return Reading(await capacity.read(self._spec.gpu_resource))

    async def access(self, username: str) -> Access:
        return Access()

    async def estimate(self, launch: Launch, username: str) -> datetime | None:
        return None  # Kubernetes has no queue: a pod fits now, or nobody knows when

    async def strays(self, hub: str, known: Collection[str]) -> list[str]:
        return []

    def child_class(self) -> type[Spawner]:
        from .spawner import KubernetesSessionSpawner

        return KubernetesSessionSpawner

    def prepare(self, child: Any, launch: Launch | None) -> None:
        child.namespace = self._spec.namespace
        child.profile_list = []  # the request is already validated and is turned into traits below
        child.user_options = {}
        if launch is None:
            return
        resources, realisation = launch.resources, launch.realisation
        child.cpu_limit, child.cpu_guarantee = float(resources.cpus), min(0.5, float(resources.cpus))
        child.mem_limit = child.mem_guarantee = int(resources.memory_gb * 1e9)
        if resources.gpus:
            gpus = {self._spec.gpu_resource: str(resources.gpus)}
            child.extra_resource_limits = {**child.extra_resource_limits, **gpus}
            child.extra_resource_guarantees = {**child.extra_resource_guarantees, **gpus}
        if realisation.image:
            child.image = realisation.image
        child.environment = {**child.environment, **realisation.variables}
        child.start_timeout = self._spec.start_timeout
        # what was asked for is what is given: the pod ends with its run time, as a Slurm job does
        child.extra_pod_config = {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": launch.request.seconds,
            **child.extra_pod_config,
        }
        set_traits(child, self._spec.traits, f"target {self.name}")
        set_traits(child, realisation.traits, f"environment {launch.request.environment} on {self.name}")
