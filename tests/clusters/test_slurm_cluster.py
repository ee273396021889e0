"""The private Slurm keeps its promises: real jobs with GPUs, nothing left behind, no clash, recovery from accidents."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.clusters.fixtures import SLURM_REMEDY
from tests.clusters.requirement import unavailable
from tests.clusters.slurm import ClusterError, SlurmCluster, SlurmSpec
from tests.clusters.slurm.daemons import missing_packages
from tests.clusters.slurm.processes import Process, wait_for

pytestmark = pytest.mark.slurm
HOSTS = Path("/etc/hosts")


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory that other users can enter, and that the test must leave non-existent."""
    if missing := missing_packages(dbd=True, rest=True):
        unavailable("slurm", f"not installed: {', '.join(missing)}", SLURM_REMEDY)
    if os.geteuid():
        unavailable("slurm", "not root", SLURM_REMEDY)
    with tempfile.TemporaryDirectory(prefix="oberalp-slurm-test-") as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "state"
        yield path
        SlurmCluster(state=path).down()


def submit(cluster: SlurmCluster, script: str, *options: str, user: str | None = None) -> str:
    command = ["sbatch", "--parsable", "--chdir=/", "--output=/dev/null", *options]
    return cluster.run(*command, stdin=f"#!/bin/sh\n{script}\n", user=user).stdout.strip()


def await_state(cluster: SlurmCluster, job: str, *states: str) -> None:
    assert wait_for(lambda: cluster.job_state(job) in states, 30, 0.1), (job, cluster.job_state(job))


def mentioning(text: str) -> list[str]:
    """Command lines of the processes whose command line or environment has `text`, this test's own apart."""
    own = {os.getpid(), os.getppid()}
    found = []
    for home in Path("/proc").iterdir():
        if not home.name.isdigit() or int(home.name) in own:
            continue
        try:
            if text.encode() in (home / "cmdline").read_bytes() + (home / "environ").read_bytes():
                found.append((home / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def test_a_job_sees_its_gpus_and_down_leaves_nothing(state: Path) -> None:
    cluster = SlurmCluster(SlurmSpec(nodes=2, gpus=4), state).up()
    output = state.parent / "output"
    assert cluster.node_states() == {"nid000001": "idle", "nid000002": "idle"}
    assert b"127.0.0.1 nid000002" in HOSTS.read_bytes()
    cluster.run("getent", "hosts", "nid000002")

    script = f"echo $CUDA_VISIBLE_DEVICES $SLURM_GPUS_ON_NODE $SLURMD_NODENAME >{output}"
    done = submit(cluster, script, "--gres=gpu:gh200:2", "--nodelist=nid000002")
    await_state(cluster, done, "COMPLETED")
    assert output.read_text().split() == ["0,1", "2", "nid000002"]

    # A job that hides: without its environment, in a session of its own, deaf to SIGTERM.
    hiding = f"trap '' TERM; echo $$ >{output}; while :; do sleep 9; done"
    hidden = submit(cluster, f"env -i setsid sh -c {shlex.quote(hiding)} & wait")
    await_state(cluster, hidden, "RUNNING")
    assert wait_for(lambda: output.read_text().strip().isdigit(), 10)
    shell = Process.of(int(output.read_text()))
    assert shell

    cluster.down()
    assert not shell.alive()
    assert mentioning(str(state)) == []
    assert not state.exists()
    assert (
        str(state).encode() not in HOSTS.read_bytes()
    )  # other lines: test_slurm_files; another cluster may come and go
    cluster.down()  # nothing to do is no error


def test_jobs_of_other_users_run_as_them(state: Path) -> None:
    with SlurmCluster(SlurmSpec(nodes=1), state) as cluster:
        output = state.parent / "output"
        output.touch(mode=0o666)
        output.chmod(0o666)
        await_state(cluster, submit(cluster, f"id -un >{output}", user="nobody"), "COMPLETED")
        assert output.read_text() == "nobody\n"


def test_up_again_leaves_a_healthy_cluster_and_replaces_a_damaged_one(state: Path) -> None:
    cluster = SlurmCluster(SlurmSpec(nodes=2), state).up()
    before = cluster.daemons()
    assert SlurmCluster(SlurmSpec(nodes=2), state).up().daemons() == before

    for name in ("slurmctld", "munged"):
        pid = cluster.daemons()[name]
        assert pid
        os.kill(pid, signal.SIGKILL)
    assert not cluster.running
    again = SlurmCluster(SlurmSpec(nodes=2), state).up()
    assert again.running
    assert not set(before.values()) & set(again.daemons().values())

    assert len(SlurmCluster(SlurmSpec(nodes=3), state).up().node_states()) == 3


def test_down_finds_daemons_whose_directory_is_gone(state: Path) -> None:
    cluster = SlurmCluster(SlurmSpec(nodes=1), state).up()
    submit(cluster, "sleep 600")
    state.rename(state.with_name("lost"))
    cluster.down()
    subprocess.run(["rm", "-r", state.with_name("lost")], check=True)
    assert mentioning(str(state)) == []
    assert str(state).encode() not in HOSTS.read_bytes()


def test_two_clusters_do_not_meet(state: Path) -> None:
    with SlurmCluster(SlurmSpec(nodes=1), state) as first:
        with SlurmCluster(SlurmSpec(nodes=1), state.with_name("other")) as second:
            job = submit(second, "sleep 600")
            await_state(second, job, "RUNNING")
            assert first.run("squeue", "--noheader").stdout == ""
        assert first.running
        assert b"127.0.0.1 nid000001" in HOSTS.read_bytes()


def test_accounting_and_the_rest_api_answer(state: Path) -> None:
    with SlurmCluster(SlurmSpec(nodes=1, rest=True), state) as cluster:
        job = submit(cluster, "exit 3", "--gres=gpu:1")
        await_state(cluster, job, "FAILED")
        fields = ["sacct", "-XnP", f"--jobs={job}", "--format=state,exitcode,alloctres"]
        assert wait_for(lambda: "FAILED|3:0|" in cluster.run(*fields).stdout, 20, 0.2)
        assert "gres/gpu=1" in cluster.run(*fields).stdout

        headers = {"X-SLURM-USER-NAME": "root", "X-SLURM-USER-TOKEN": cluster.token("root")}
        url = f"{cluster.env['SLURM_REST_URL']}/slurm/v0.0.38/jobs"
        answer = httpx.get(url, headers=headers, trust_env=False).raise_for_status().json()
        assert [str(entry["job_id"]) for entry in answer["jobs"]] == [job]
    assert mentioning(str(state)) == []


def test_tests_can_cause_accidents_and_mend_them(state: Path) -> None:
    with SlurmCluster(SlurmSpec(nodes=2), state) as cluster:
        job = submit(cluster, "sleep 600", "--nodelist=nid000001")
        await_state(cluster, job, "RUNNING")

        cluster.stop_controller()
        with pytest.raises(ClusterError, match="Unable to contact slurm controller"):
            cluster.run("squeue")
        cluster.start_controller()
        assert cluster.job_state(job) == "RUNNING"

        cluster.drain("nid000002")
        assert cluster.node_states()["nid000002"] == "drained"
        cluster.resume("nid000002")

        cluster.fail_node("nid000001")
        await_state(cluster, job, "NODE_FAIL")
        cluster.start_node("nid000001")
        assert wait_for(lambda: set(cluster.node_states().values()) == {"idle"}, 30, 0.2)


def test_the_command_prints_lines_to_evaluate_and_nothing_else(state: Path) -> None:
    environment = {**os.environ, "OBERALP_SLURM_STATE": str(state)}
    command = (
        f"set -e; eval \"$({sys.executable} -m tests.clusters.slurm up --nodes 1)\"; sinfo -hN -p debug -o '%N %T'"
    )
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("nid000001 idle\n", 0), done.stderr

    for verb, code in (("status", 0), ("down", 0), ("status", 1)):
        ended = subprocess.run([sys.executable, "-m", "tests.clusters.slurm", verb], env=environment, timeout=60)
        assert ended.returncode == code, verb


def test_a_directory_that_is_not_a_clusters_is_never_touched(state: Path) -> None:
    state.mkdir()
    (state / "thesis.tex").touch()
    for act in (SlurmCluster(SlurmSpec(nodes=1), state).up, SlurmCluster(state=state).down):
        with pytest.raises(ClusterError, match="not the state of a Slurm test cluster"):
            act()
    (state / "thesis.tex").unlink()
