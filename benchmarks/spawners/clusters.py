"""The private Slurm and the Kubernetes of a benchmark: what is left there, fillers, deaths."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.clusters.kubernetes import KubernetesCluster
from tests.clusters.slurm import SlurmCluster

FILLER = "filler"


def jobs(slurm: SlurmCluster) -> dict[str, str]:
    """State of each job in the queue by id, fillers and ended ones excluded."""
    lines = slurm.run("squeue", "--noheader", "--format=%i %T %j").stdout.splitlines()
    found = (line.split(" ", 2) for line in lines)
    return {number: state for number, state, name in found if name != FILLER}


def cancel_all(slurm: SlurmCluster) -> None:
    if left := list(jobs(slurm)):
        slurm.run("scancel", *left, check=False)


@contextmanager
def filled(slurm: SlurmCluster, gpus: int) -> Iterator[None]:
    """Jobs of somebody else hold `gpus` GPUs meanwhile (one job for each; they only sleep)."""
    argv = ["sbatch", "--parsable", f"--job-name={FILLER}", "--gres=gpu:gh200:1", "--output=/dev/null"]
    ids = [slurm.run(*argv, "--wrap=sleep 7200").stdout.strip() for _ in range(gpus)]
    try:
        yield
    finally:
        if ids:
            slurm.run("scancel", *ids, check=False)


def session_pods(kubernetes: KubernetesCluster, namespace: str) -> list[str]:
    """Names of the pods of sessions that exist, whatever their phase."""
    pods = kubernetes.pods(namespace, "component=singleuser-server")
    return [pod["metadata"]["name"] for pod in pods]


def rpcs(slurm: SlurmCluster) -> dict[str, int]:
    """What slurmctld has answered since `forget_rpcs`, by type of message; daemons' own messages excluded."""
    text = slurm.run("sdiag").stdout
    table = text.partition("Remote Procedure Call statistics by message type")[2].partition("Remote Procedure Call")[0]
    found = {name: int(count) for name, count in re.findall(r"(\w+)\s+\(\s*\d+\)\s+count:(\d+)", table)}
    own = ("MESSAGE_", "REQUEST_COMPLETE", "REQUEST_STEP_COMPLETE", "REQUEST_STATS_INFO", "REQUEST_PING")
    return {name: count for name, count in found.items() if not name.startswith(own)}


def forget_rpcs(slurm: SlurmCluster) -> None:
    slurm.run("sdiag", "--reset")


IN_A_SESSION = (b"SLURM_JOB_ID=", b"KUBERNETES_SERVICE_HOST=")


def server_processes(server: str) -> list[int]:
    """Processes of jobs and pods on this machine whose environment says that they belong to the named server."""
    mark = f"JUPYTERHUB_SERVER_NAME={server}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                # the command that submits a job has the mark as well
                if mark in environment and any(variable.startswith(IN_A_SESSION) for variable in environment):
                    found.append(int(entry.name))
            except OSError:
                continue  # ended meanwhile
    return sorted(found)


def kill_server(server: str) -> bool:
    """SIGKILL for all processes of a named server; False if there are none."""
    pids = server_processes(server)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return bool(pids)


def api_server_pid() -> int:
    """The process of the test cluster's API server. FileNotFoundError if this is another kind of cluster."""
    state = Path(os.environ.get("KUBERNETES_STATE", "/var/tmp/kubernetes"))
    pid = int((state / "kube-apiserver.pid").read_text())
    if b"kube-apiserver" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
        raise FileNotFoundError(f"process {pid} is no kube-apiserver")
    return pid
