"""Real sessions on all three targets through the REST API: start, a cell, stop, and nothing left behind."""

import json
from pathlib import Path

import pytest

from tests.clusters.kubernetes import KubernetesCluster, host_volumes, pod_manifest
from tests.clusters.requirement import unavailable
from tests.clusters.slurm import SlurmCluster
from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User
from tests.hub.process import ROOT, Hub
from tests.hub.sites import SESSION_IMAGE, clusters_site

CELL = "import json, os; print(json.dumps({k: os.environ.get(k) for k in ('CUDA_VISIBLE_DEVICES', 'SLURM_JOB_ID', 'HOME')}))"


def jobs(slurm: SlurmCluster) -> list[str]:
    """Jobs in the queue, ended ones excluded."""
    return slurm.run("squeue", "--noheader", "--format=%i %T").stdout.splitlines()


def messages(events: list[dict]) -> str:
    return "\n".join(str(event.get("message")) for event in events)


def test_local_session_runs_a_cell_and_leaves_no_process(hub: Hub) -> None:
    user = hub.login("lovelace")
    user.start({"profile": "cpu-1", "target": "local"})
    assert json.loads(user.run_cell(CELL))["HOME"].endswith("/lovelace")
    # a process that the session left in the background ends with it
    pid = int(
        user.run_cell("import subprocess; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid)")
    )
    user.stop()
    assert wait_for(lambda: not _alive(pid), 20, 0.2)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slurm
def test_slurm_session_sees_its_gpu_and_stop_leaves_no_job(hub: Hub, slurm_cluster: SlurmCluster) -> None:
    user = hub.login("hopper")
    user.start({"profile": "gpu-1", "target": "slurm"})
    seen = json.loads(user.run_cell(CELL))
    assert seen["CUDA_VISIBLE_DEVICES"] in {"0", "1", "2", "3"}
    job = slurm_cluster.run("scontrol", "--oneliner", "show", "job", seen["SLURM_JOB_ID"]).stdout
    assert "TresPerNode=gres:gpu:gh200:1" in job
    assert "TimeLimit=00:30:00" in job
    assert user.token not in job
    user.stop()
    assert jobs(slurm_cluster) == []


@pytest.mark.kubernetes
def test_kubernetes_session_gets_one_gpu_and_stop_leaves_no_pod(
    hub: Hub, kubernetes_cluster: KubernetesCluster
) -> None:
    user = hub.login("goldstine")
    user.start({"profile": "gpu-1", "target": "kubernetes"})
    (pod,) = [p for p in kubernetes_cluster.pods() if p["metadata"]["labels"].get("component") == "singleuser-server"]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert json.loads(user.run_cell(CELL))["HOME"] == "/home/session"
    user.stop()
    assert [p for p in kubernetes_cluster.pods() if p["metadata"]["name"] == pod["metadata"]["name"]] == []


@pytest.mark.kubernetes
@pytest.mark.images
def test_kubernetes_session_runs_the_image_of_this_tree(hub: Hub, kubernetes_cluster: KubernetesCluster) -> None:
    if not kubernetes_cluster.has_image(SESSION_IMAGE):
        unavailable(
            "images", f"the cluster has no {SESSION_IMAGE}", "images/build singleuser, and load it into the cluster"
        )
    user = hub.login("wilkes")
    user.start({"profile": "gpu-1", "environment": "image", "target": "kubernetes"})
    seen = user.run_cell("import os, torch, ipytune, transformers; print(os.getuid(), torch.__version__.split('+')[0])")
    assert seen.split() == ["1000", "2.13.0"]
    user.stop()


@pytest.mark.slurm
def test_named_sessions_of_one_user_live_side_by_side(hub: Hub, slurm_cluster: SlurmCluster) -> None:
    user = hub.login("hamilton")
    user.start({"profile": "gpu-1", "target": "slurm"}, "first")
    user.start({"profile": "gpu-1", "target": "slurm"}, "second")
    assert user.run_cell("print(1 + 1)", "first") == user.run_cell("print(1 + 1)", "second") == "2\n"
    user.stop("first")
    assert user.run_cell("print('still here')", "second") == "still here\n"
    user.stop("second")
    assert jobs(slurm_cluster) == []


@pytest.mark.slurm
@pytest.mark.kubernetes
def test_auto_goes_to_slurm_when_kubernetes_has_no_free_gpu(
    hub: Hub, slurm_cluster: SlurmCluster, kubernetes_cluster: KubernetesCluster
) -> None:
    gpus = str(kubernetes_cluster.allocatable_gpus())
    image = kubernetes_cluster.host_image
    volumes, mounts = host_volumes()  # the image is empty
    limits = {"limits": {"nvidia.com/gpu": gpus}}
    everything = pod_manifest(image, ["/usr/bin/sleep", "600"], resources=limits, volumeMounts=mounts)
    everything["spec"]["volumes"] = volumes
    pod = kubernetes_cluster.create_pod(everything)
    try:
        assert wait_for(lambda: _scheduled(kubernetes_cluster, pod), 30, 0.2)
        user = hub.login("lamarr")
        assert wait_for(lambda: offers(user)["chosen"] == "slurm", 20, 0.5)
        assert "0 of" in offers(user)["reason"]
        events = user.start({"profile": "gpu-1"})
        assert user.run_cell("import os; print(os.environ['SLURM_JOB_PARTITION'])") == "normal\n"
        assert "Server ready" in messages(events)
        user.stop()
    finally:
        kubernetes_cluster.delete_pod(pod)


def _scheduled(cluster: KubernetesCluster, name: str) -> bool:
    pod = cluster.pod(name)
    return bool(pod and pod["spec"].get("nodeName"))


@pytest.mark.slurm
@pytest.mark.kubernetes
def test_auto_goes_to_kubernetes_when_slurm_has_no_free_gpu(
    slurm_cluster: SlurmCluster, kubernetes_cluster: KubernetesCluster, tmp_path: Path
) -> None:
    site = clusters_site(kubernetes_cluster, slurm=True)
    site["targets"].sort(key=lambda target: target["name"], reverse=True)  # a site that prefers Slurm
    environment = {**slurm_cluster.env, "KUBECONFIG": str(kubernetes_cluster.kubeconfig)}
    hub = Hub(site, tmp_path / "hub", environment).start()
    try:
        user = hub.login("johnson")
        assert offers(user)["chosen"] == "slurm"
        argv = ["sbatch", "--parsable", "--nodes=4", "--gres=gpu:gh200:4", "--output=/dev/null", "--wrap=sleep 600"]
        filling = slurm_cluster.run(*argv).stdout.strip()
        try:
            assert wait_for(lambda: offers(user)["chosen"] == "kubernetes", 30, 0.5)
            assert "Slurm: 0 of 16 GH200 GPUs free now" in offers(user)["reason"]
            user.start({"profile": "gpu-1"})
            assert user.run_cell("import os; print(os.environ['HOME'])") == "/home/session\n"
            user.stop()
        finally:
            slurm_cluster.run("scancel", filling)
            assert wait_for(lambda: not jobs(slurm_cluster), 30, 0.2)
    finally:
        hub.close()


def offers(user: User) -> dict:
    answer = user.api.get("/hub/api/hybridspawner/offers", params={"profile": "gpu-1"})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.slurm
@pytest.mark.timeout(900)
def test_notebook_01_runs_under_papermill_inside_a_slurm_session(hub: Hub, slurm_cluster: SlurmCluster) -> None:
    user = hub.login("mcnulty")
    user.start({"profile": "gpu-4", "target": "slurm", "runtime": "01:00:00"})
    notebook = str(ROOT / "notebooks" / "01-first-session.ipynb")
    run = ["papermill", notebook, "out.ipynb", "--no-progress-bar", "-p", "PROFILE", "smoke"]
    printed = user.run_cell(
        "import subprocess, os\n"
        f"done = subprocess.run({run!r}, capture_output=True, text=True, env=os.environ | {{'HF_HUB_OFFLINE': '1'}})\n"
        "print(done.returncode, done.stderr[-2000:] if done.returncode else '')",
        seconds=800,
    )
    assert printed.split()[0] == "0", printed
    answer = user.api.get(f"/user/{user.name}/api/contents/01-first-session/metrics.json")
    metrics = json.loads(answer.json()["content"])
    assert metrics["notebook"] == "01-first-session" and metrics["exact_match_n"] == 4
    assert metrics["training"]["phase"] == "completed" if "phase" in metrics["training"] else metrics["training"]
    user.stop()
    assert jobs(slurm_cluster) == []
