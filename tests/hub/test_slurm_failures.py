"""Slurm sessions that cannot start, each failure made for real: what happened, why, what to do, with the evidence.

The cluster enforces accounts, QoS and memory; every job is root's, except where another user is the matter.
"""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters.fixtures import private_cluster
from tests.clusters.slurm import SlurmCluster, SlurmSpec
from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User
from tests.hub.process import Hub
from tests.hub.sites import clusters_site
from tests.hub.test_sessions import jobs

pytestmark = pytest.mark.slurm

THIEF = """
import re, socket, sys, time
while not (found := re.search(r"port (\\d+)", open(sys.argv[1]).read())):
    time.sleep(0.01)
thief = socket.socket()
thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
thief.bind(("0.0.0.0", int(found[1])))
thief.listen()
while True:
    thief.accept()[0].close()
"""
SUDO = """#!/bin/bash
# sudo -n -H -u USER -- COMMAND, as root, where sudo is not installed
export HOME=/nonexistent
exec runuser -u "$4" -- "${@:6}"
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    """Two nodes; `students` is not root's account, `seminar` (on the second node) not root's reservation."""
    with private_cluster(SlurmSpec(nodes=2, limits=True)) as cluster:
        limits = {
            "no-submit": "MaxSubmitJobsPerUser=0",
            "one-job": "MaxJobsPerUser=1",
            "short": "MaxWall=00:10:00",
            "one-gpu": "MaxTRESPerJob=gres/gpu=1",
        }
        ask = ["sacctmgr", "--immediate", "--quiet"]
        cluster.run(*ask, "add", "account", "students")
        cluster.run(*ask, "add", "user", "nobody", "account=students")
        for name, limit in limits.items():
            cluster.run(*ask, "add", "qos", name)
            cluster.run(*ask, "modify", "qos", name, "set", limit)
        cluster.run(*ask, "modify", "user", "root", "set", f"qos+={','.join(limits)}")
        where = ["starttime=now", "duration=60", "nodes=nid000002", "users=nobody"]
        cluster.run("scontrol", "create", "reservation", "reservationname=seminar", *where)
        yield cluster


@pytest.fixture(scope="module")
def shared(cluster: SlurmCluster) -> Path:
    """A directory that every user can enter."""
    directory = cluster.layout.root.parent / "shared"
    directory.mkdir()
    return directory


@pytest.fixture(scope="module")
def hub(cluster: SlurmCluster, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub whose environments are broken in as many ways; target `slurm-user` submits as the user."""
    site = clusters_site(None, slurm=True)
    slurm = next(t for t in site["targets"] if t["name"] == "slurm")
    slurm["home"] = str(shared / "home" / "{username}")
    del slurm["partitions"]  # so that a request may name one that is not there
    site["targets"].append({**slurm, "name": "slurm-user", "run_as": "user"})
    for profile in site["profiles"]:
        profile["targets"] = ["slurm", "slurm-user"]
    for name, realisation in environments(shared).items():
        realisations = {t: {"python": sys.executable, **realisation} for t in ("slurm", "slurm-user")}
        site["environments"].append({"name": name, "title": name, "targets": realisations})
    bin = shared / "bin"
    bin.mkdir()
    (bin / "sudo").write_text(SUDO)
    (bin / "sudo").chmod(0o755)
    hub = Hub(site, tmp_path_factory.mktemp("hub"), {**cluster.env, "PATH": f"{bin}:{os.environ['PATH']}"}).start()
    try:
        yield hub
    finally:
        hub.close()


def environments(directory: Path) -> dict[str, dict[str, Any]]:
    (directory / "thief.py").write_text(THIEF)
    (directory / "not-executable").write_text("#!/bin/sh\n")
    (directory / "closed").mkdir(mode=0o700)
    (directory / "closed" / "python").write_text("#!/bin/sh\n")
    (directory / "closed" / "python").chmod(0o755)
    return {
        "crash": {"prologue": "echo The licence server is down; exit 3"},
        "secret": {"prologue": "env | grep API_TOKEN; echo the token is $JUPYTERHUB_API_TOKEN.; exit 3"},
        "slow": {"prologue": "sleep 600"},
        "missing": {"python": "/opt/nowhere/bin/python"},
        "not-executable": {"python": str(directory / "not-executable")},
        "closed": {"python": str(directory / "closed" / "python")},
        "bare": {"python": bare_environment(directory / "bare")},
        "no-lab": {"python": environment_without_lab(directory / "no-lab")},
        "no-home": {"traits": {"req_homedir": "/nonexistent/home"}},
        "unreachable": {
            "prologue": "export HYBRIDSPAWNER_CALLBACK=http://127.0.0.1:9/hub/api/hybridspawner/port",
            "traits": {"callback_timeout": 8},
        },
        "gave-up": {
            "prologue": "export HYBRIDSPAWNER_CALLBACK=http://127.0.0.1:9/hub/api/hybridspawner/port\n"
            'HYBRIDSPAWNER_NODE="${HYBRIDSPAWNER_NODE/PATIENCE = 900/PATIENCE = 2}"'
        },
        "stolen-port": {"prologue": f"/usr/bin/python3 {directory}/thief.py $(readlink /proc/$$/fd/1) &"},
        "hungry": {
            "prologue": "/usr/bin/python3 -c 'import time; x = bytearray(200_000_000); time.sleep(60)'",
            "traits": {"req_memory": "20M"},
        },
        "killed": {"prologue": "kill -9 $$"},
        "later": {"traits": {"req_options": "--begin=now+3600"}},
        "no-submit": {"traits": {"req_qos": "no-submit"}},
        "one-job": {"prologue": "sleep 600", "traits": {"req_qos": "one-job"}},
        "short": {"traits": {"req_qos": "short"}},
        "one-gpu": {"traits": {"req_qos": "one-gpu"}},
    }


def bare_environment(directory: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    return str(directory / "bin" / "python")


def environment_without_lab(directory: Path) -> str:
    """This environment, except for JupyterLab."""
    python = bare_environment(directory)
    (packages,) = directory.glob("lib/python3*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.suffix != ".pth" and not entry.name.startswith(("jupyterlab", "notebook")):
            (packages / entry.name).symlink_to(entry)
    return python


def failure(user: User, options: dict[str, Any]) -> str:
    """Start a session that must fail; everything that its user is told."""
    answer = user.post({"target": "slurm", **options})
    told = answer.text if answer.status_code >= 400 else "\n".join(str(event) for event in user.events())
    assert "failed" in told or answer.status_code >= 400, told
    assert wait_for(lambda: user.model() is None, 30, 0.2)
    return told


def told_while_waiting(user: User, options: dict[str, Any], words: str) -> str:
    """Start a session; the first event of its progress that has `words`. AssertionError with all if none has."""
    answer = user.post({"target": "slurm", **options})
    assert answer.status_code in (201, 202), answer.text
    return next_event(user, words)


def next_event(user: User, words: str) -> str:
    seen = []
    for event in user.events():
        seen.append(str(event))
        if words in seen[-1]:
            return seen[-1]
    raise AssertionError("\n".join(seen))


def job_of(cluster: SlurmCluster, state: str) -> str:
    """The only job in that state, once there is one."""
    assert wait_for(lambda: [line for line in jobs(cluster) if line.endswith(state)], 20, 0.1), jobs(cluster)
    (line,) = [line for line in jobs(cluster) if line.endswith(state)]
    return line.split()[0]


# -- refused at once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"partition": "large"}, "The partition large does not exist. Choose another partition."),
        ({"account": "students"}, "is not yours, or may not use the partition. Choose another account."),
        ({"reservation": "seminar"}, "The reservation is not open to you."),
        ({"reservation": "not-there"}, "The reservation does not exist"),
        ({"environment": "no-submit"}, "as many jobs as the quality of service allows one user"),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "",
)
def test_what_sbatch_refuses_is_told_in_plain_words(
    hub: Hub, cluster: SlurmCluster, options: dict[str, Any], told: str
) -> None:
    words = failure(hub.login("germain"), options)
    assert "Slurm refused the job" in words and told in words and "sbatch: error" in words
    assert jobs(cluster) == []


# -- waiting for what never comes, and for what may --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"partition": "debug", "runtime": "05:00:00"}, "more time than the partition allows. Ask for less time."),
        ({"environment": "short", "runtime": "01:00:00"}, "more time than the quality of service allows one job."),
        ({"environment": "one-gpu", "profile": "gpu-4"}, "more GPUs than the quality of service allows one job."),
    ],
    ids=["partition", "qos time", "qos gpus"],
)
def test_a_job_that_can_never_start_ends_the_start_at_once(
    hub: Hub, cluster: SlurmCluster, options: dict[str, Any], told: str
) -> None:
    words = failure(hub.login("noether"), options)
    assert "The job can never start and was taken back." in words and told in words
    assert wait_for(lambda: jobs(cluster) == [], 20, 0.2)


def test_a_limit_of_jobs_is_told_while_the_job_waits(hub: Hub, cluster: SlurmCluster) -> None:
    first, second = hub.login("curie"), hub.login("meitner")
    first.post({"target": "slurm", "environment": "one-job"})
    job_of(cluster, "RUNNING")
    words = told_while_waiting(second, {"environment": "one-job"}, "as many running jobs as")
    assert "stop one of your sessions or jobs" in words and "QOSMaxJobsPerUserLimit" in words
    second.stop()
    first.stop()
    assert jobs(cluster) == []


def test_a_held_job_is_told_with_how_to_release_it(hub: Hub, cluster: SlurmCluster) -> None:
    user = hub.login("franklin")
    told_while_waiting(user, {"environment": "later"}, "its begin time has not come")
    job = job_of(cluster, "PENDING")
    cluster.run("scontrol", "uhold", job)
    assert "scontrol release" in next_event(user, "it is held")
    cluster.run("scontrol", "release", job)
    cluster.run("scontrol", "hold", job)
    assert "ask its support" in next_event(user, "the site holds it")
    user.stop()
    assert jobs(cluster) == []


# -- ended on the node -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ("crash", "The licence server is down"),
        ("missing", "missing on the node: /opt/nowhere/bin/python"),
        ("not-executable", "not executable for you on the node: "),
        ("bare", "The environment lacks JupyterHub."),
        ("no-lab", "The environment lacks JupyterLab"),
        ("no-home", "could not write the session's log /nonexistent/home/"),
        ("gave-up", "The node cannot reach the hub at http://127.0.0.1:9/"),
        ("stolen-port", "Another program took the session's port"),
        ("hungry", "used more memory than it has"),
        ("killed", "killed (signal 9)"),
    ],
)
def test_a_job_that_dies_is_told_with_its_cause(hub: Hub, cluster: SlurmCluster, environment: str, told: str) -> None:
    words = failure(hub.login("lovelace"), {"environment": environment})
    assert "The job ended before the session was usable." in words and told in words
    assert "Slurm: FAILED" in words  # the evidence
    assert jobs(cluster) == []


@pytest.mark.parametrize(
    ("environment", "told"),
    [("closed", "not executable for you on the node: "), ("crash", "could not write the session's log")],
    ids=["interpreter in a closed directory", "home not writable"],
)
def test_what_another_user_may_not_do_is_told(
    hub: Hub, cluster: SlurmCluster, shared: Path, environment: str, told: str
) -> None:
    home = shared / "home" / "nobody"
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o777 if environment == "closed" else 0o755)
    words = failure(hub.login("nobody"), {"target": "slurm-user", "environment": environment})
    assert told in words
    assert jobs(cluster) == []


def test_no_message_holds_a_secret(hub: Hub) -> None:
    words = failure(hub.login("turing"), {"environment": "secret"})
    assert "the token is ***." in words and "JUPYTERHUB_API_TOKEN=***" in words


def test_a_node_that_cannot_reach_the_hub_is_told_while_it_tries_and_at_the_end(hub: Hub) -> None:
    words = failure(hub.login("hopper"), {"environment": "unreachable"})
    waiting, _, ended = words.partition("it goes on trying")
    assert "The node cannot reach the hub at http://127.0.0.1:9/" in waiting and "Connection refused" in words
    assert "did not call the hub within 8 s" in ended
    assert "The node cannot reach the hub at http://127.0.0.1:9/hub/api/hybridspawner/port. Tell the site" in ended


def test_a_node_that_fails_is_named(hub: Hub, cluster: SlurmCluster) -> None:
    user = hub.login("joliot")
    told_while_waiting(user, {"environment": "slow"}, "the server is starting")
    cluster.fail_node("nid000001")
    try:
        told = next_event(user, "ended before")
        assert "The node nid000001 failed." in told and "Start again" in told
    finally:
        cluster.start_node("nid000001")


def test_a_job_that_somebody_else_cancels_is_told(hub: Hub, cluster: SlurmCluster) -> None:
    user = hub.login("agnesi")
    told_while_waiting(user, {"environment": "slow"}, "the server is starting")
    cluster.run("scancel", job_of(cluster, "RUNNING"))
    assert "cancelled outside JupyterHub" in next_event(user, "ended before")


def test_a_job_whose_time_is_over_is_told(hub: Hub, cluster: SlurmCluster) -> None:
    user = hub.login("galois")
    told_while_waiting(user, {"environment": "slow", "runtime": "00:01:00"}, "the server is starting")
    # Slurm looks at the limits every 30 s: let the minute be over at the next look
    cluster.run("scontrol", "update", f"jobid={job_of(cluster, 'RUNNING')}", "endtime=now+1")
    told = next_event(user, "ended before")
    assert "The job reached its time limit of 00:01:00." in told and "Ask for more time." in told
