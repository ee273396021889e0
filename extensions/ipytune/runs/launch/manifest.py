"""The Kubernetes Job of a run, for the launcher and for the export alike. Pure: settings in, a dictionary out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ipytune.runs.launch.settings import NOTICE_SECONDS, KubernetesSettings, seconds

KEPT_SECONDS = 86400
"""A finished Job is kept for a day, so that its end can be asked; then the cluster removes it."""
# How the trainer learns which Job it is in.
JOB_VARIABLE, NAMESPACE_VARIABLE = "IPYTUNE_JOB", "IPYTUNE_NAMESPACE"
JOB_LABEL = "batch.kubernetes.io/job-name"


def job_name(run_name: str, mark: str = "") -> str:
    """A valid name for any run: a to z, digits and dashes, at most 63; unique when `mark` is.

    >>> job_name("Größe 7/b", "0a1b2c")
    'ipytune-gr-e-7-b-0a1b2c'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", run_name.lower()).strip("-")[:40].strip("-")
    return "-".join(part for part in ("ipytune", slug, mark) if part)


def manifest(
    settings: KubernetesSettings, name: str, arguments: Sequence[str], module: str = "ipytune.runs.launch.job"
) -> dict[str, Any]:
    """A Job of one pod that runs `python -m MODULE ARGUMENTS`.

    - Never started twice: a second trainer in one run directory would do harm; a new Job continues.
    - At the walltime, or when it is deleted, the trainer gets SIGTERM and two minutes for checkpoint and adapter.
    """
    resources: dict[str, str] = {"cpu": settings.cpus, "memory": settings.memory}
    if settings.gpus:
        resources[settings.gpu_resource] = str(settings.gpus)
    container: dict[str, Any] = {
        "name": "trainer",
        "image": settings.image,
        "command": [settings.python or "python", "-m", module, *arguments],
        "env": [
            {"name": JOB_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{JOB_LABEL}']"}}},
            {"name": NAMESPACE_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ],
        # Requests equal to limits: a run neither takes nor loses memory and cores to neighbours.
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "volumeMounts": [
            {"name": "runs", "mountPath": settings.mount},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
    if settings.secret:
        container["envFrom"] = [{"secretRef": {"name": settings.secret}}]
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": bool(settings.service_account),  # the trainer asks the cluster for nothing
        # Of the pod and not of the Job: the Job's clock runs while it waits for a GPU.
        "activeDeadlineSeconds": seconds(settings.walltime),
        "terminationGracePeriodSeconds": NOTICE_SECONDS,
        "containers": [container],
        "volumes": [
            {"name": "runs", "persistentVolumeClaim": {"claimName": settings.claim}},
            # NCCL's and the data loader's; the default of 64 MiB is too little. Counts as the pod's memory.
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    labels = {"app.kubernetes.io/name": "ipytune"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
        },
    }
