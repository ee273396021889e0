"""A batch as Kubernetes Jobs: the manifests, what they are asked, and all of it on a real cluster."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ipytune
from ipytune.batch import scripts
from ipytune.batch.directory import BatchDirectory, State
from ipytune.batch.on_kubernetes import KubernetesJobs
from ipytune.batch.overview import Overview, Row
from ipytune.batch.submit import cancel, new_batch, read_notebook, resume, submit
from ipytune.runs.launch import KubernetesSettings, LaunchError
from ipytune.runs.launch.kubernetes_api import Client, Unreachable
from tests.clusters.kubernetes import KubernetesCluster, host_volumes
from tests.ipytune.batch import tiny

LIMIT = 300.0


class Memory:
    """The API as a dictionary: Jobs wait until a test says more of them."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.refuse_after: int | None = None
        self.silent = False

    def create(self, manifest: dict[str, Any]) -> None:
        if self.refuse_after is not None and len(self.jobs) >= self.refuse_after:
            raise LaunchError("Kubernetes refused the Job: exceeded quota")
        self.jobs[manifest["metadata"]["name"]] = manifest

    def job(self, name: str, namespace: str) -> dict[str, Any] | None:
        if self.silent:
            raise Unreachable("no route")
        return self.jobs.get(name)

    def pods(self, name: str, namespace: str) -> list[dict[str, Any]]:
        return []

    def log(self, pod: str, namespace: str, lines: int) -> str:
        return ""

    def delete(self, name: str, namespace: str) -> None:
        self.jobs.pop(name, None)


def batch_of(folder: Path, sets: list[dict[str, Any]], at_once: int | None = None, **more: Any) -> tuple:
    content, names = read_notebook(tiny.write(folder / "tiny.ipynb"))
    options = {"image": "ipytune:1", "claim": "runs", "mount": str(folder), "walltime": "00:10:00", **more}
    settings = KubernetesSettings.model_validate(options)
    batch = new_batch(
        folder / "tiny.ipynb",
        content,
        on="kubernetes",
        kubernetes=settings,
        at_once=at_once,
        sets=tuple(sets),
        cwd=str(folder),
    )
    return batch, content, names


def test_as_many_jobs_as_run_at_once_share_the_sets(tmp_path: Path) -> None:
    directory, api = BatchDirectory(tmp_path / "Größe 7"), Memory()
    batch, content, names = batch_of(tmp_path, [{"NAME": "$(marker)"}] * 5, at_once=2)
    assert batch.kubernetes is not None
    jobs = KubernetesJobs(directory, batch, batch.kubernetes, lambda: api)
    submission = submit(directory, batch, content, names, jobs)
    assert list(api.jobs) == [one.job for one in submission.kubernetes]
    assert len(api.jobs) == 2 and all(name.startswith("ipytune-gr-e-7-") for name in api.jobs)
    for number, body in enumerate(api.jobs.values()):
        pod = body["spec"]["template"]["spec"]
        assert pod["containers"][0]["command"] == [
            "python", "-m", scripts.WORKER, str(directory.path), f"--submission={submission.mark}",
            f"--worker={number}", "--seconds=480",
        ]  # fmt: skip
        assert pod["activeDeadlineSeconds"] == 5 * 600
        assert "marker" not in str(body)
    assert [row.state for row in Overview(directory, jobs).rows()] == [State.QUEUED] * 5
    api.silent = True
    assert Overview(directory, jobs).rows()[0].words == "Kubernetes does not answer"


def test_a_job_that_is_refused_takes_the_others_back(tmp_path: Path) -> None:
    directory, api = BatchDirectory(tmp_path / "batch"), Memory()
    api.refuse_after = 1
    batch, content, names = batch_of(tmp_path, [{}] * 3)
    assert batch.kubernetes is not None
    with pytest.raises(LaunchError, match="quota"):
        submit(directory, batch, content, names, KubernetesJobs(directory, batch, batch.kubernetes, lambda: api))
    assert not api.jobs and not directory.path.exists()


def test_what_the_pods_would_not_see_is_refused(tmp_path: Path) -> None:
    batch, content, names = batch_of(tmp_path, [{}], mount="/data")
    with pytest.raises(LaunchError, match="not below /data"):
        submit(BatchDirectory(tmp_path / "batch"), batch, content, names)


# ---- A real Kubernetes -----------------------------------------------------------------------------------------------


class HostClient(Client):
    """Pods of the empty image, with this machine's programs and this Python in them."""

    def __init__(self, *paths: str) -> None:
        super().__init__()
        self._volumes, self._mounts = host_volumes(*paths)

    def create(self, manifest: dict[str, Any]) -> None:
        body = copy.deepcopy(manifest)
        pod = body["spec"]["template"]["spec"]
        pod["volumes"] += self._volumes
        container = pod["containers"][0]
        container["volumeMounts"] += self._mounts
        container["imagePullPolicy"] = "Never"
        container["env"] += [
            {"name": "HOME", "value": "/tmp"},
            {"name": "PYTHONPATH", "value": str(Path(ipytune.__file__).parents[1])},
        ]
        super().create(body)


def follow(overview: Overview, condition: Callable[[list[Row]], bool], directory: BatchDirectory) -> list[Row]:
    deadline = time.monotonic() + LIMIT
    while not condition(rows := overview.rows(interval=2.0)):
        assert time.monotonic() < deadline, f"{rows}\n{''.join(p.read_text() for p in directory.path.glob('*/log'))}"
        time.sleep(0.3)
    return rows


@pytest.mark.kubernetes
def test_sets_run_in_pods_are_cancelled_and_resumed(
    kubernetes_cluster: KubernetesCluster, shared_claim: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, namespace = shared_claim
    monkeypatch.setenv("KUBECONFIG", str(kubernetes_cluster.kubeconfig))
    directory = BatchDirectory(folder / "batch")
    batch, content, names = batch_of(
        folder,
        [{"RANK": 1}, {"RANK": 2, "WAIT": True}, {"RANK": 3}],
        at_once=1,
        image=kubernetes_cluster.host_image,
        namespace=namespace,
        python=sys.executable,
        cpus="500m",
        memory="1Gi",
    )
    assert batch.kubernetes is not None
    source = str(Path(ipytune.__file__).parents[1])
    jobs = KubernetesJobs(directory, batch, batch.kubernetes, lambda: HostClient(source))
    submit(directory, batch, content, names, jobs)
    overview = Overview(directory, jobs)
    begun = directory.path / "001/results/begun"
    rows = follow(overview, lambda rows: begun.exists(), directory)
    assert [row.state for row in rows] == [State.DONE, State.RUNNING, State.QUEUED]

    assert cancel(directory, jobs) == [1, 2]
    rows = overview.rows()
    assert [row.state for row in rows] == [State.DONE, State.CANCELLED, State.CANCELLED]
    assert kubernetes_cluster.get(f"/apis/batch/v1/namespaces/{namespace}/jobs")["items"] == []
    assert kubernetes_cluster.pods(namespace) == []

    (directory.path / "001" / "go").touch()
    again, _ = resume(directory, jobs)
    assert again is not None and again.sets == (1, 2)
    rows = follow(overview, lambda rows: all(row.state.final for row in rows), directory)
    assert [(row.state, (row.metrics or {}).get("deep")) for row in rows] == [
        (State.DONE, {"rank": 1}),
        (State.DONE, {"rank": 2}),
        (State.DONE, {"rank": 3}),
    ]
