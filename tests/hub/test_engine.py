"""papermill through a real hub: the notebook runs in a session, and however the run ends, the session does."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User
from tests.hub.forwarder import Forwarder
from tests.hub.papermill_run import PapermillRun
from tests.hub.process import Hub
from tests.hub.sites import clusters_site

# counts the seconds of a cell that lasts until a file appears beside it, so that a test decides how long
WAITING = """
import pathlib, time
print("cell begins", flush=True)
while not pathlib.Path("go-on").exists():
    time.sleep(0.1)
print("cell ends")
"""
GO_ON = 'import pathlib; pathlib.Path("go-on").touch()'


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub of this module's own, which its tests kill."""
    running = Hub(clusters_site(), tmp_path_factory.mktemp("engine")).start(90)
    yield running
    running.close()


@pytest.fixture
def user(hub: Hub, request: pytest.FixtureRequest) -> User:
    return hub.login(f"u{abs(hash(request.node.name)) % 10**8}")


def test_a_notebook_runs_in_a_session_of_its_own(tmp_path: Path, user: User) -> None:
    cells = [
        "x = 1",
        "import os; print(x, os.environ['JUPYTERHUB_SERVER_NAME'], os.getcwd())",
        "from IPython.display import HTML, display\nshown = display(HTML('a'), display_id=True)\nshown.update(HTML('b'))",
        "import ipywidgets; ipywidgets.IntSlider(value=x)",
    ]
    run = PapermillRun(tmp_path, user, cells, "-p", "x", "5", "-p", "profile", "cpu-1")
    assert run.finish() == 0, run.log
    assert run.printed.startswith("5 nb-nightly-") and run.printed.strip().endswith(f"/{user.name}")
    assert run.cells[3].outputs[0].data["text/html"] == "b"
    assert "application/vnd.jupyter.widget-view+json" in run.cells[4].outputs[0].data
    assert "profile cpu-1" in run.log and "The session is ready" in run.log
    assert run.sessions() == []
    assert user.token not in run.log + run.output.read_text()


def test_a_cell_that_fails_is_papermills_error(tmp_path: Path, user: User) -> None:
    run = PapermillRun(tmp_path, user, ["x = 1", "print('before'); raise ValueError('no such thing')", "x"])
    assert run.finish() == 1
    assert "ValueError: no such thing" in run.log
    assert run.statuses == ["completed", "failed", "pending"] and "before" in run.printed
    assert run.sessions() == []


def test_a_kernel_that_dies_is_papermills_138(tmp_path: Path, user: User) -> None:
    run = PapermillRun(tmp_path, user, ["x = 1", "import os; os._exit(1)", "x"])
    assert run.finish() == 138
    assert run.statuses == ["completed", "failed", "pending"]
    assert run.sessions() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-p", "profile", "moon"), "profile: 'moon' is not available to you. Allowed: cpu-1"),
        (("-p", "lease", "forever"), "lease"),
        (("-k", "fortran"), "It has: python3"),
    ],
)
def test_what_cannot_be_had_is_said_without_a_traceback(
    tmp_path: Path, user: User, arguments: tuple[str, ...], words: str
) -> None:
    run = PapermillRun(tmp_path, user, ["x = 1"], *arguments, "-l", "python")
    assert run.finish() == 1
    assert words in run.log and "Traceback" not in run.log
    assert set(run.statuses) == {"pending"}
    assert run.sessions() == []


def test_a_wrong_token_is_said_with_where_to_get_one(tmp_path: Path, user: User) -> None:
    token, user.token = user.token, "nonsense"
    run = PapermillRun(tmp_path, user, ["x = 1"])
    user.token = token
    assert run.finish() == 1
    assert "does not take this token" in run.log and "/hub/token" in run.log and "access:servers" in run.log
    assert "Traceback" not in run.log


@pytest.mark.parametrize(("sig", "status"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_session_and_keeps_the_output(
    tmp_path: Path, user: User, sig: signal.Signals, status: int
) -> None:
    run = PapermillRun(tmp_path, user, ["print('first')", WAITING, "3"], "--autosave-cell-every", "1")
    run.until_printed("cell begins")
    run.process.send_signal(sig)
    assert run.finish() == status, run.log
    assert run.statuses == ["completed", "failed", "pending"] and "first" in run.printed
    assert run.sessions() == []
    assert "The session is stopped" in run.log


def test_a_client_that_is_killed_leaves_a_session_only_for_its_lease(tmp_path: Path, user: User) -> None:
    run = PapermillRun(tmp_path, user, ["x = 1", WAITING], "-p", "lease", "00:00:30")
    assert wait_for(lambda: "completed" in run.statuses, 90, 0.1), run.log
    run.process.kill()
    run.finish()
    assert len(run.sessions()) == 1
    assert wait_for(lambda: not run.sessions(), 90, 0.5)


def test_a_connection_that_breaks_costs_no_output(tmp_path: Path, user: User) -> None:
    with Forwarder(user.url) as forwarder:
        cells = ["x = 1", WAITING, "print('after', x)"]
        here = f"http://127.0.0.1:{forwarder.port}"
        run = PapermillRun(tmp_path, user, cells, "--autosave-cell-every", "1", url=here)
        run.until_printed("cell begins")
        (session,) = run.sessions()
        forwarder.cut()
        user.run_cell(GO_ON, session)  # the cell goes on and ends while nobody listens
        forwarder.heal()
        assert run.finish() == 0, run.log
    assert run.printed == "cell begins\ncell ends\nafter 1\n"
    assert run.sessions() == []


def test_a_connection_that_is_dead_without_a_word_costs_no_cell(tmp_path: Path, user: User) -> None:
    """What was sent into it is lost: neither does the run hang, nor is a cell run twice."""
    with Forwarder(user.url) as forwarder:
        cells = ["runs = []", f"runs.append(1)\n{WAITING}", "print('after', runs)"]
        run = PapermillRun(tmp_path, user, cells, url=f"http://127.0.0.1:{forwarder.port}")
        assert wait_for(lambda: "completed" in run.statuses, 90, 0.1), run.log
        (session,) = run.sessions()
        forwarder.freeze()
        user.run_cell(GO_ON, session)
        assert wait_for(lambda: _idle(user, session), 30, 0.2)  # its answer is somewhere between
        forwarder.cut()
        forwarder.heal()
        assert run.finish() == 0, run.log
    assert "after [1]" in run.printed
    assert run.sessions() == []


def _idle(user: User, session: str) -> bool:
    kernels = user.api.get(f"/user/{user.name}/{session}/api/kernels").json()
    return bool(kernels) and all(kernel["execution_state"] == "idle" for kernel in kernels)


def test_a_hub_that_is_killed_and_started_again_costs_nothing(tmp_path: Path, hub: Hub, user: User) -> None:
    run = PapermillRun(tmp_path, user, ["x = 1", WAITING, "print('after', x)"])
    assert wait_for(lambda: "completed" in run.statuses, 90, 0.1), run.log
    (session,) = run.sessions()
    hub.stop(signal.SIGKILL)
    hub.start(90)
    assert wait_for(lambda: (user.model(session) or {}).get("ready"), 60, 0.2)
    user.run_cell(GO_ON, session)
    assert run.finish() == 0, run.log
    assert "cell ends" in run.printed and "after 1" in run.printed
    assert run.sessions() == []


def test_a_session_that_is_stopped_by_another_ends_the_run_with_what_finished(tmp_path: Path, user: User) -> None:
    run = PapermillRun(tmp_path, user, ["print('first')", WAITING, "3"], "--autosave-cell-every", "1")
    run.until_printed("cell begins")
    (session,) = run.sessions()
    user.stop(session)
    assert run.finish() == 1, run.log
    assert "The session ended while the notebook ran" in run.log and "--resume" in run.log
    assert "Traceback" not in run.log
    assert run.statuses == ["completed", "failed", "pending"] and "first" in run.printed
