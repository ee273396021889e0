"""Sessions that move, that a restarted hub takes up or gives up, and what is left behind: nothing."""

import json
import signal
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.clusters.slurm import SlurmCluster
from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User
from tests.hub.process import Hub
from tests.hub.test_failures import slurm_site, waiting
from tests.hub.test_sessions import jobs

pytestmark = pytest.mark.slurm


def held_site(directory: Path, **policy: Any) -> dict[str, Any]:
    """A site whose Slurm looks free but lets every job wait, and that prefers it."""
    site = slurm_site(directory)
    site["policy"] = {"preference": ["slurm", "local"], **policy}
    for target in site["targets"]:
        if target["name"] == "slurm":
            target["traits"] = {"req_options": "--begin=now+1hour"}
    return site


@pytest.fixture
def run(slurm_cluster: SlurmCluster, tmp_path: Path) -> Iterator[Any]:
    """Start hubs of given sites; ends them."""
    hubs = []

    def start(site: dict[str, Any]) -> Hub:
        hubs.append(Hub(site, tmp_path / f"hub{len(hubs)}", dict(slurm_cluster.env)).start())
        return hubs[-1]

    yield start
    for hub in hubs:
        hub.close()


def session(user: User, server: str = "") -> str:
    return f"/hub/api/hybridspawner/sessions/{user.name}" + (f"/{server}" if server else "")


def stream(user: User) -> Iterator[dict[str, Any]]:
    with user.api.stream("GET", session(user), timeout=120) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


def test_a_waiting_session_is_offered_another_target_and_moves_at_a_click(
    run: Any, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    user = run(held_site(tmp_path, fallback="ask")).login("mccarthy")
    user.post({"profile": "cpu-1"})
    events = stream(user)
    offer = next(event["offer"] for event in events if event.get("offer"))
    assert offer["target"] == "local" and len(waiting(slurm_cluster)) == 1
    assert user.api.post(session(user), json={"target": "nowhere"}).status_code == 400
    assert user.api.post(session(user), json={"target": "slurm"}).status_code == 409
    assert user.api.post(session(user), json={"target": "local"}).status_code == 202
    told = [event["message"] for event in events if "message" in event]
    assert any("confirms that nothing is left there" in message for message in told)
    assert jobs(slurm_cluster) == []
    assert user.run_cell("import os; print('SLURM_JOB_ID' in os.environ)") == "False\n"
    user.stop()


def test_by_policy_a_waiting_session_moves_by_itself_once_the_job_is_gone(
    run: Any, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    user = run(held_site(tmp_path, fallback="auto", longest_wait="00:00:01")).login("naur")
    events = user.start({"profile": "cpu-1"})
    assert any("instead of Slurm" in str(event.get("message")) for event in events)
    assert jobs(slurm_cluster) == []
    user.stop()


def test_a_target_chosen_by_name_is_not_left_by_itself(run: Any, slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    user = run(held_site(tmp_path, fallback="auto", longest_wait="00:00:01")).login("backus")
    user.post({"profile": "cpu-1", "target": "slurm"})
    assert any(event.get("offer") for event in stream(user))
    assert len(waiting(slurm_cluster)) == 1
    user.stop()
    assert jobs(slurm_cluster) == []


def test_a_start_that_is_cancelled_while_its_request_is_open_is_no_fault(
    run: Any, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    user = run(held_site(tmp_path)).login("hoare")
    with ThreadPoolExecutor() as pool:
        for _ in range(3):
            asking = pool.submit(user.post, {"profile": "cpu-1", "target": "slurm"})
            assert wait_for(lambda: (user.model() or {}).get("pending") == "spawn", 20, 0.02)
            cancels = [pool.submit(user.api.delete, f"/hub/api/users/{user.name}/server") for _ in range(3)]
            assert asking.result().status_code in (202, 409)
            assert {cancel.result().status_code for cancel in cancels} <= {202, 204}
            assert wait_for(lambda: user.model() is None, 30, 0.1)
    assert jobs(slurm_cluster) == []


@pytest.mark.parametrize("ours", [True, False])
def test_a_queued_session_of_before_a_restart_is_shown_and_can_be_cancelled(
    run: Any, slurm_cluster: SlurmCluster, tmp_path: Path, ours: bool
) -> None:
    hub = run(held_site(tmp_path))
    user = hub.login("iverson")
    user.post({"profile": "cpu-1", "target": "slurm"})
    assert wait_for(lambda: waiting(slurm_cluster), 20, 0.1)
    hub.stop(signal.SIGKILL)
    hub.start()
    following = stream(user) if ours else user.events()
    assert any("In the queue" in str(event.get("message")) for event in following)
    answer = user.api.delete(session(user) if ours else "/hub/api/users/iverson/server")
    assert answer.status_code in (202, 204), answer.text
    assert wait_for(lambda: not jobs(slurm_cluster), 30, 0.2), hub.log[-3000:]
    assert wait_for(lambda: user.model() is None, 60, 0.2)


def test_strays_of_this_hub_are_ended_and_other_jobs_are_left_alone(
    run: Any, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    hub = run(slurm_site(tmp_path))
    named = hub.directory / "state" / "hub_name"
    assert wait_for(lambda: named.exists() and named.read_text(), 10, 0.1)
    name = named.read_text().strip()
    hub.stop()
    ours, other = (
        slurm_cluster.run("sbatch", "--parsable", f"--comment={mark}", "-o/dev/null", "--wrap=sleep 600").stdout.strip()
        for mark in (f"{name}-00ff00ff00ff00ff", "jupyterhub-11111111-00ff00ff00ff00ff")
    )
    hub.start()
    assert wait_for(lambda: not any(line.startswith(f"{ours} ") for line in jobs(slurm_cluster)), 30, 0.2)
    assert any(line.startswith(f"{other} ") for line in jobs(slurm_cluster))
    slurm_cluster.run("scancel", other)
    assert wait_for(lambda: not jobs(slurm_cluster), 30, 0.2)


def test_a_session_on_record_that_the_hub_does_not_count_as_running_is_ended(
    run: Any, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    hub = run(slurm_site(tmp_path))
    user = hub.login("wirth")
    user.start({"profile": "cpu-1", "target": "slurm"})
    hub.stop(signal.SIGKILL)
    # as if it had been killed between forgetting the server and writing the state of its spawner
    with sqlite3.connect(hub.directory / "state" / "jupyterhub.sqlite") as database:
        database.execute("update spawners set server_id = null")
    hub.start()
    assert wait_for(lambda: not jobs(slurm_cluster), 60, 0.2), hub.log[-3000:]


def test_a_stop_that_the_hub_did_not_live_to_finish_is_finished_by_the_next(
    run: Any, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    hub = run(slurm_site(tmp_path))
    user = hub.login("kay")
    user.start({"profile": "cpu-1", "target": "slurm"})
    slurm_cluster.stop_controller()
    try:
        answer = user.api.delete(f"/hub/api/users/{user.name}/server")  # cannot be proved while nobody answers
        assert answer.status_code == 202
        hub.stop(signal.SIGKILL)
    finally:
        slurm_cluster.start_controller()
    assert len(jobs(slurm_cluster)) == 1
    hub.start()
    assert wait_for(lambda: not jobs(slurm_cluster), 60, 0.2), hub.log[-3000:]
    assert wait_for(lambda: user.model() is None, 60, 0.2)


def test_the_token_of_a_session_that_died_while_the_hub_was_down_is_revoked(
    run: Any, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    hub = run(slurm_site(tmp_path))
    user = hub.login("dahl")
    before = tokens(user)
    user.start({"profile": "cpu-1", "target": "slurm"})
    assert len(tokens(user)) > len(before)
    hub.stop(signal.SIGKILL)
    slurm_cluster.run("scancel", "--me")
    assert wait_for(lambda: not jobs(slurm_cluster), 30, 0.2)
    hub.start()
    assert wait_for(lambda: user.model() is None, 60, 0.2)
    assert wait_for(lambda: tokens(user) <= before, 20, 0.2)


def test_the_next_spawn_page_says_why_the_last_session_ended(
    run: Any, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    user = run(slurm_site(tmp_path)).login("thompson")
    user.start({"profile": "cpu-1", "target": "slurm"})
    (job,) = jobs(slurm_cluster)
    slurm_cluster.run("scancel", job.split()[0])
    assert wait_for(lambda: user.model() is None, 60, 0.2)
    page = user.browser.get("/hub/spawn").text
    assert "Your last session on Slurm has ended." in page and "was cancelled" in page


def tokens(user: User) -> set[str]:
    """Ids of API tokens that servers hold."""
    listed = user.api.get(f"/hub/api/users/{user.name}/tokens").json()["api_tokens"]
    return {token["id"] for token in listed if "Server at" in (token.get("note") or "")}


def test_a_hub_with_queued_starts_ends_within_seconds_and_leaves_them_queued(
    run: Any, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    hub = run(held_site(tmp_path))
    user = hub.login("nygaard")
    for number in range(15):
        user.post({"profile": "cpu-1", "target": "slurm"}, f"s{number}")
    assert wait_for(lambda: len(waiting(slurm_cluster)) == 15, 60, 0.2)
    began = time.monotonic()
    hub.stop(seconds=15)
    assert time.monotonic() - began < 15 and len(waiting(slurm_cluster)) == 15
    hub.start()
    for number in range(15):
        assert user.api.delete(session(user, f"s{number}")).status_code in (202, 204)
    assert wait_for(lambda: not jobs(slurm_cluster), 60, 0.2), hub.log[-3000:]


def test_pages_say_which_target_is_silent(run: Any, slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    hub = run(slurm_site(tmp_path))
    user = hub.login("ritchie")
    user.start({"profile": "cpu-1", "target": "slurm"})
    slurm_cluster.stop_controller()
    try:
        assert wait_for(lambda: silent(user)["slurm"] is not None, 60, 0.5)
        assert silent(user)["local"] is None and (user.model() or {}).get("ready")
    finally:
        slurm_cluster.start_controller()
    assert wait_for(lambda: silent(user)["slurm"] is None, 90, 0.5)
    user.stop(seconds=120)


def silent(user: User) -> dict[str, float | None]:
    return {t["target"]: t["silent_for"] for t in user.api.get("/hub/api/hybridspawner/targets").json()}
