"""Starts that cannot succeed end at once, with the reason and the evidence; cancelled and restarted ones lose nothing."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.clusters.slurm import SlurmCluster
from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User
from tests.hub.process import Hub
from tests.hub.sites import clusters_site
from tests.hub.test_sessions import jobs


def slurm_site(directory: Path) -> dict[str, Any]:
    site = clusters_site(None, slurm=True)
    for target in site["targets"]:
        if target["name"] == "slurm":
            target["home"] = str(directory / "home" / "{username}")
    return site


def failure(user: User, options: dict[str, Any]) -> str:
    """Start a session that must fail; what its user is told at the end."""
    answer = user.post(options)
    if answer.status_code >= 400:
        return answer.text
    last = list(user.events())[-1]
    assert last.get("failed"), last
    return str(last.get("html_message") or last["message"])


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Hub]:
    """A hub whose environments are broken in different ways."""
    site = clusters_site()
    for name, python in (("crash", "/bin/false"), ("missing", "/opt/nowhere/bin/python")):
        site["environments"].append({"name": name, "title": name, "targets": {"local": {"python": python}}})
    hub = Hub(site, tmp_path / "hub").start()
    yield hub
    hub.close()


def test_a_process_that_dies_at_once_ends_the_start(broken: Hub) -> None:
    user = broken.login("noether")
    assert "exit code was 1" in failure(user, {"environment": "crash", "target": "local"})
    assert "could not be started" in failure(user, {"environment": "missing", "target": "local"})


@pytest.fixture
def full(slurm_cluster: SlurmCluster) -> Iterator[None]:
    """Every GPU of the cluster is taken, so that the next job waits."""
    argv = ["sbatch", "--parsable", "--nodes=4", "--gres=gpu:gh200:4", "--output=/dev/null", "--wrap=sleep 600"]
    filling = slurm_cluster.run(*argv).stdout.strip()
    assert wait_for(lambda: f"{filling} RUNNING" in jobs(slurm_cluster), 20, 0.2)
    yield
    slurm_cluster.run("scancel", filling)
    assert wait_for(lambda: not jobs(slurm_cluster), 30, 0.2)


def waiting(slurm: SlurmCluster) -> list[str]:
    return [line for line in jobs(slurm) if line.endswith("PENDING")]


@pytest.mark.slurm
def test_cancelling_a_queued_start_takes_the_job_back(hub: Hub, slurm_cluster: SlurmCluster, full: None) -> None:
    user = hub.login("curie")
    for _ in range(3):
        user.post({"profile": "gpu-1", "target": "slurm"})
        assert wait_for(lambda: waiting(slurm_cluster), 20, 0.1)
        user.stop()
        assert waiting(slurm_cluster) == []


@pytest.mark.slurm
def test_a_class_that_starts_at_once_is_all_on_record(hub: Hub, slurm_cluster: SlurmCluster, full: None) -> None:
    user, before = hub.login("curie"), len(hub.log)
    seats = [f"seat{number}" for number in range(16)]
    with ThreadPoolExecutor(len(seats)) as pool:
        answers = pool.map(lambda seat: user.post({"profile": "gpu-1", "target": "slurm"}, seat).status_code, seats)
        assert set(answers) == {202}
        assert wait_for(lambda: len(waiting(slurm_cluster)) == len(seats), 60, 0.2)
        assert all((user.model(seat) or {}).get("pending") == "spawn" for seat in seats)
        list(pool.map(user.stop, seats))
    assert waiting(slurm_cluster) == []
    assert "Rolling back" not in hub.log[before:]  # what waits its turn has nothing that another request could undo


@pytest.mark.slurm
def test_a_start_that_waits_its_turn_can_be_cancelled(hub: Hub, slurm_cluster: SlurmCluster, full: None) -> None:
    user = hub.login("curie")
    seats = [f"gone{number}" for number in range(16)]

    def in_and_out(seat: str) -> int:
        with ThreadPoolExecutor(1) as asking:
            answer = asking.submit(user.post, {"profile": "gpu-1", "target": "slurm"}, seat)
            assert wait_for(lambda: user.model(seat) is not None, 20, 0.02)
            user.stop(seat)
            return answer.result().status_code

    with ThreadPoolExecutor(len(seats)) as pool:
        assert set(pool.map(in_and_out, seats)) <= {202, 409}
    assert waiting(slurm_cluster) == []
    assert not any(user.model(seat) for seat in seats)


@pytest.mark.slurm
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_hub_that_ends_finds_its_queued_and_running_sessions_again(
    slurm_cluster: SlurmCluster, tmp_path: Path, sig: signal.Signals
) -> None:
    hub = Hub(slurm_site(tmp_path), tmp_path / "hub", dict(slurm_cluster.env)).start()
    try:
        running, queued, starting = (hub.login(name) for name in ("meitner", "franklin", "hopper"))
        running.start({"profile": "gpu-1", "target": "slurm"})
        argv = ["sbatch", "--parsable", "--nodes=3", "--gres=gpu:gh200:4", "--output=/dev/null", "--wrap=sleep 600"]
        filling = slurm_cluster.run(*argv).stdout.strip()
        with ThreadPoolExecutor(2) as pool:  # a request to start is answered after two seconds
            pool.submit(starting.post, {"profile": "gpu-1", "target": "slurm"})
            assert wait_for(lambda: len(jobs(slurm_cluster)) == 3 and not waiting(slurm_cluster), 20, 0.1)
            pool.submit(queued.post, {"profile": "gpu-4", "target": "slurm"})
            assert wait_for(lambda: waiting(slurm_cluster), 20, 0.1)
        (pending,) = waiting(slurm_cluster)

        hub.stop(sig)
        assert waiting(slurm_cluster) == [pending]
        hub.start()
        for user in (running, starting):  # each can be reached as soon as it is ready, though another one is queued
            assert wait_for(lambda user=user: (user.model() or {}).get("ready"), 60, 0.2), hub.log[-3000:]
            assert json.loads(user.run_cell("print(1)")) == 1
        assert waiting(slurm_cluster) == [pending]

        slurm_cluster.run("scancel", filling)
        assert wait_for(lambda: (queued.model() or {}).get("ready"), 60, 0.2), hub.log[-3000:]
        assert queued.run_cell("import os; print(os.environ['SLURM_JOB_ID'])").strip() == pending.split()[0]
        for user in (running, queued, starting):
            user.stop()
        assert wait_for(lambda: not jobs(slurm_cluster), 30, 0.2)
    finally:
        hub.close()


@pytest.mark.slurm
def test_a_silent_scheduler_is_not_the_end_of_a_session(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    hub = Hub(slurm_site(tmp_path), tmp_path / "hub", dict(slurm_cluster.env)).start()
    try:
        user = hub.login("joliot")
        user.start({"profile": "gpu-1", "target": "slurm"})
        slurm_cluster.stop_controller()
        try:
            assert wait_for(lambda: "Slurm does not answer" in hub.log, 90, 0.5)
            assert (user.model() or {}).get("ready")
            assert user.run_cell("print('alive')") == "alive\n"
        finally:
            slurm_cluster.start_controller()
        user.stop(seconds=120)
        assert wait_for(lambda: not jobs(slurm_cluster), 30, 0.2)
    finally:
        hub.close()
