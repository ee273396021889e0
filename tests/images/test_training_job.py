"""A run as a real Kubernetes Job in the image of the sessions, from its submission to its adapter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.runs import Phase, Run
from ipytune.runs.launch import KubernetesJob, KubernetesSettings
from tests.clusters.fixtures import CLAIM
from tests.clusters.kubernetes import KubernetesCluster
from tests.clusters.requirement import unavailable
from tests.images.test_images import tag
from tests.ipytune.lora import tiny

pytestmark = [pytest.mark.images, pytest.mark.kubernetes]


def open_to_all(folder: Path) -> None:
    """The pod's user is not the one who runs the tests."""
    for path in [folder, *folder.rglob("*")]:
        if path.stat().st_uid == os.getuid():
            path.chmod(0o777 if path.is_dir() else 0o666)


def test_a_job_trains_to_its_adapter(
    kubernetes_cluster: KubernetesCluster, shared_claim: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tag("singleuser")
    if not kubernetes_cluster.has_image(image):
        unavailable("images", f"the cluster has no {image}", "podman save it and load the archive into the cluster")
    folder, namespace = shared_claim
    monkeypatch.setenv("KUBECONFIG", str(kubernetes_cluster.kubeconfig))
    config = RunConfig(
        model=str(tiny.save(folder / "model")),
        train_file=tiny.write_conversations(folder / "train.jsonl", 24),
        lora=LoraSettings(rank=4),
        batch_size=8,
        max_steps=4,
        row_tokens=256,
        max_length=128,
    )
    settings = KubernetesSettings(
        image=image, claim=CLAIM, mount=str(folder), namespace=namespace, cpus="1", memory="3Gi"
    )
    run = Run.start(config, folder / "run", launcher=KubernetesJob(settings))
    open_to_all(folder)
    report = run.wait(timeout=240)
    assert report["step"] == 4 and run.status().phase is Phase.COMPLETED
    assert run.status().host != os.uname().nodename
    assert (run.adapter / "adapter_model.safetensors").is_file()
