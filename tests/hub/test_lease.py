"""Leases in a real hub: a session whose client is gone ends and leaves nothing, whatever it was doing."""

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.clusters.slurm import SlurmCluster
from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User
from tests.hub.process import Hub
from tests.hub.sites import clusters_site
from tests.hub.test_failures import waiting
from tests.hub.test_life_cycle import held_site
from tests.hub.test_sessions import jobs

LOCAL = {"profile": "cpu-1", "target": "local", "lease": "00:00:30"}
SLURM = {**LOCAL, "target": "slurm"}
ALLOWED = "lease: {} Allowed: HH:MM:SS, 00:00:30 to 01:00:00."


def path(user: User, server: str) -> str:
    return f"/hub/api/hybridspawner/leases/{user.name}" + (f"/{server}" if server else "")


def renew(user: User, server: str = "") -> httpx.Response:
    return user.api.post(path(user, server))


@contextmanager
def renewing(user: User, server: str) -> Iterator[list[int]]:
    """A client that is alive: renews every few seconds. Gives what it was answered."""
    over, answers = threading.Event(), [renew(user, server).status_code]

    def keep() -> None:
        while not over.wait(5):
            answers.append(renew(user, server).status_code)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def known(user: User, server: str) -> bool:
    """Whether the hub knows the named server at all, running or not."""
    return user.api.get(f"/hub/api/users/{user.name}/servers/{server}").status_code == 200


def process_of(user: User, server: str) -> int:
    return int(user.run_cell("import os; print(os.getppid())", server))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_only_who_may_start_the_session_renews_its_lease(hub: Hub) -> None:
    user, other = hub.login("hamming"), hub.login("shannon")
    for text, problem in (
        ("00:00:10", "'00:00:10' is too short."),
        ("1 h", "'1 h' must be written HH:MM:SS or D-HH:MM:SS."),
    ):
        answer = user.post({**LOCAL, "lease": text}, "run")
        assert answer.status_code == 400 and answer.json()["message"] == ALLOWED.format(problem)
    assert renew(user, "run").status_code == renew(user).status_code == 404
    user.start(LOCAL, "run")
    user.start({"profile": "cpu-1", "target": "local"})
    answer = renew(user, "run")
    assert answer.status_code == 200 and answer.json() == {"lease": 30, "expires_in": 30.0}
    assert renew(user).status_code == 409
    assert other.api.post(path(user, "run")).status_code in (403, 404)
    assert httpx.post(hub.url + path(user, "run"), trust_env=False).status_code == 403
    page = user.browser.get("/hub/spawn", follow_redirects=True)
    assert page.status_code == 200
    user.stop("run")
    user.stop()
    assert renew(user, "run").status_code == 404


@pytest.mark.slurm
@pytest.mark.timeout(400)
def test_what_nobody_renews_ends_and_leaves_nothing_also_after_the_hub_was_killed(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    hub = Hub(held_site(tmp_path), tmp_path / "hub", dict(slurm_cluster.env)).start()
    try:
        user = hub.login("wilkes")
        user.start(LOCAL, "kept")
        kept = process_of(user, "kept")
        with renewing(user, "kept") as answers:
            user.start(LOCAL, "lost")
            user.start(LOCAL)
            lost, default = process_of(user, "lost"), process_of(user, "")
            user.post(SLURM, "queued")
            assert wait_for(lambda: waiting(slurm_cluster), 20, 0.2)
            told = list(user.events("queued"))
            assert "Nobody renewed the lease of 30 s" in [event.get("message") for event in told]
            assert wait_for(lambda: not jobs(slurm_cluster), 60, 0.2)
            assert wait_for(lambda: not alive(lost) and not alive(default), 60, 0.5)
            assert wait_for(lambda: not known(user, "lost") and not known(user, "queued"), 60, 0.5)
            assert wait_for(lambda: user.model() is None, 60, 0.5)
            assert "Nobody renewed the lease of 30 s." in user.browser.get("/hub/spawn").text
        assert set(answers) == {200} and alive(kept)

        user.post(SLURM, "queued")
        assert wait_for(lambda: waiting(slurm_cluster), 20, 0.2)
        hub.stop(signal.SIGKILL)
        hub.start()
        assert renew(user, "kept").status_code == 200 and alive(kept)
        assert wait_for(lambda: not jobs(slurm_cluster) and not alive(kept), 90, 0.5), hub.log[-3000:]
        assert wait_for(lambda: not known(user, "kept") and not known(user, "queued"), 60, 0.5)
    finally:
        hub.close()


def test_a_lease_lapses_in_a_hub_with_an_address_for_its_sessions(tmp_path: Path) -> None:
    """As in every hub whose sessions are on other machines."""
    site = clusters_site()
    site["hub"]["connect_url"] = "http://localhost:{port}"
    with closing(Hub(site, tmp_path / "hub").start()) as hub:
        user = hub.login("boole")
        user.start(LOCAL, "run")
        pid = process_of(user, "run")
        assert wait_for(lambda: not known(user, "run") and not alive(pid), 60, 0.5)
