"""papermill through the hub on real Slurm and real Kubernetes: a job each, gone afterwards, and gone on with."""

from pathlib import Path

import pytest

from tests.clusters.kubernetes import KubernetesCluster
from tests.clusters.slurm import SlurmCluster
from tests.clusters.slurm.processes import wait_for
from tests.hub.papermill_run import PapermillRun
from tests.hub.process import Hub
from tests.hub.test_sessions import jobs

GPU = "import os; print('gpu', os.environ['CUDA_VISIBLE_DEVICES'], os.environ['SLURM_JOB_ID'])"


@pytest.mark.slurm
def test_a_notebook_runs_as_a_job_and_the_job_is_gone(tmp_path: Path, hub: Hub, slurm_cluster: SlurmCluster) -> None:
    run = PapermillRun(
        tmp_path, hub.login("babbage"), ["x = 1", GPU], "-p", "profile", "gpu-1", "-p", "target", "slurm"
    )
    assert run.finish(180) == 0, run.log
    assert run.printed.startswith("gpu ")
    assert "gpu-1" in run.log and "The session is ready" in run.log
    assert run.sessions() == [] and jobs(slurm_cluster) == []


@pytest.mark.slurm
def test_a_job_that_slurm_ends_keeps_what_finished_and_is_gone_on_with(
    tmp_path: Path, hub: Hub, slurm_cluster: SlurmCluster
) -> None:
    """The walltime ends it in the middle of a cell; the next run does not run the finished cells again."""
    user = hub.login("ritchie")
    cells = [
        "x = 1",
        "import pathlib\nonce = pathlib.Path('once')\nonce.write_text(once.read_text() + '1' if once.exists() else '1')",
        "import pathlib, time\nwhile not pathlib.Path('short').exists():\n    time.sleep(0.2)\nprint('through', x)",
        "print('runs', once.read_text())",
    ]
    arguments = ("-p", "profile", "gpu-1", "-p", "target", "slurm", "-p", "runtime")
    run = PapermillRun(tmp_path, user, cells, *arguments, "00:30:00")
    assert wait_for(lambda: run.statuses[1:3] == ["completed"] * 2, 120, 0.2), run.log
    (job,) = [line.split()[0] for line in jobs(slurm_cluster)]
    slurm_cluster.run("scontrol", "update", f"jobid={job}", "timelimit=1")  # Slurm ends it within the minute
    assert run.finish(240) == 1, run.log
    assert "reached its time limit" in run.log and "--resume" in run.log and "Traceback" not in run.log
    assert [s for s in run.statuses if s == "failed"] and run.statuses[-1] == "pending"
    assert run.sessions() == [] and jobs(slurm_cluster) == []

    (hub.directory / "slurm-home" / "ritchie" / "short").touch()
    again = PapermillRun(tmp_path, user, cells, *arguments, "00:20:00", resume=True)
    assert again.finish(240) == 0, again.log
    assert "through 1" in again.printed and "runs 1" in again.printed
    assert set(again.statuses) == {"completed"}
    assert again.sessions() == [] and jobs(slurm_cluster) == []


@pytest.mark.kubernetes
def test_a_notebook_runs_in_a_pod_and_the_pod_is_gone(
    tmp_path: Path, hub: Hub, kubernetes_cluster: KubernetesCluster
) -> None:
    user = hub.login("perlman")
    cells = ["x = 1", "import os; print('home', os.environ['HOME'], x)"]
    run = PapermillRun(tmp_path, user, cells, "-p", "profile", "gpu-1", "-p", "target", "kubernetes")
    assert run.finish(240) == 0, run.log
    assert run.printed == "home /home/session 1\n"
    assert run.sessions() == []
    named = [pod["metadata"]["name"] for pod in kubernetes_cluster.pods()]
    assert not [name for name in named if "perlman" in name]
