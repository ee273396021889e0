"""`ipytune run`: what cannot work is said in one line before anything starts; the exit status is papermill's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from typer.testing import CliRunner

from ipytune.cli import app
from ipytune.papermill.errors import StartFailed
from ipytune.papermill.signals import Terminated
from tests.ipytune.papermill import notebooks


@pytest.fixture(autouse=True)
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What papermill is asked to do, instead of doing it."""
    calls: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OBERALP_HUB", raising=False)
    monkeypatch.setenv("OBERALP_TOKEN", "token-of-a-test")
    monkeypatch.setattr(papermill, "execute_notebook", lambda *paths, **settings: calls.append((paths, settings)))
    notebooks.write(
        tmp_path / "in.ipynb", "STEPS = 3\nRATE = 0.1\nNAME = 'a'\nRANKS = [8]\nLIMIT = None", "print(STEPS)"
    )
    return calls


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["run", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_parameters_are_typed_by_their_defaults(called: list[Any], tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("RATE: 1\nSTEPS: 5\n")
    code, said = run("in.ipynb", "-f", "more.yaml", "-y", "RANKS: [1, 2]", "-p", "STEPS", "-7", "-r", "NAME", "007")
    assert code == 0, said
    (paths, settings) = called[0]
    assert paths == ("in.ipynb", "in.out.ipynb")
    assert settings["parameters"] == {"RATE": 1.0, "STEPS": -7, "RANKS": [1, 2], "NAME": "007"}
    assert settings["engine_name"] == "resumable" and settings["state"] is True and settings["resume"] is False


def test_a_hub_is_used_when_one_is_named(called: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        run("in.ipynb", "--hub", "https://hub.example.org", "--profile", "gpu-1", "-p", "runtime", "01:00:00")[0] == 0
    )
    settings = called[0][1]
    assert settings["engine_name"] == "hub" and settings["parameters"] == {}
    assert (settings["hub_url"], settings["profile"], settings["runtime"]) == (
        "https://hub.example.org",
        "gpu-1",
        "01:00:00",
    )
    monkeypatch.setenv("OBERALP_HUB", "https://hub.example.org")
    assert run("in.ipynb", "--cwd", "project")[0] == 0
    assert (called[1][1]["engine_name"], called[1][1]["session_cwd"], called[1][1]["cwd"]) == ("hub", "project", None)
    assert run("in.ipynb", "--engine", "resumable")[0] == 0
    assert called[2][1]["engine_name"] == "resumable"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.ipynb"], "There is no notebook missing.ipynb."),
        (["text.ipynb"], "text.ipynb is no notebook"),
        (["bare.ipynb"], "bare.ipynb does not name its kernel"),
        (["in.ipynb", "-p", "STEP", "4"], "Did you mean STEPS?"),
        (["in.ipynb", "-p", "STEPS", "many"], "STEPS is 'many': a whole number is expected"),
        (["in.ipynb", "-y", "RANKS: 8"], "RANKS is 8: a list is expected"),
        (["in.ipynb", "-y", "[1]"], "names and values are expected"),
        (["in.ipynb", "-y", "a: b: c"], "is not YAML"),
        (["in.ipynb", "-f", "missing.yaml"], "parameters file missing.yaml cannot be read"),
        (["in.ipynb", "-p", "profile", "gpu-1"], "profile says where a hub runs the notebook"),
        (["in.ipynb", "in.ipynb"], "is the notebook itself"),
        (["in.ipynb", "nowhere/out.ipynb"], "There is no directory nowhere"),
        (["in.ipynb", "--cwd", "nowhere"], "--cwd nowhere is no directory"),
        (["in.ipynb", "--engine", "other"], "hub or resumable is expected"),
        (["in.ipynb", "--engine", "hub"], "No hub is named"),
        (
            ["in.ipynb", "--hub", "https://hub.example.org", "--token-file", "missing"],
            "token file missing cannot be read",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    words: list[str], said: str, called: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "text.ipynb").write_text("no notebook")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "bare.ipynb")
    code, shown = run(*words)
    assert code == 1 and said in " ".join(shown.split())
    assert "Traceback" not in shown and not called


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (PapermillExecutionError(1, 2, "f()", "ValueError", "bad", ["bad"]), 1, "ipytune: ValueError: bad"),
        (DeadKernelError("Kernel died"), 138, "The kernel died"),
        (Terminated(15), 143, "Asked to end"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (StartFailed("The session did not start.", "The queue is closed.", "Ask."), 1, "The queue is closed. Ask."),
    ],
)
def test_a_failure_ends_with_papermills_status_and_the_line_to_go_on_with(
    error: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*paths: str, **settings: Any) -> None:
        (tmp_path / "in.out.ipynb").touch()
        raise error

    monkeypatch.setattr(papermill, "execute_notebook", fail)
    monkeypatch.setattr("sys.argv", ["ipytune", "run", "in.ipynb", "-p", "NAME", "two words"])
    code, shown = run("in.ipynb", "-p", "NAME", "two words")
    assert code == status and said in shown and "Traceback" not in shown
    line = "ipytune run in.ipynb -p NAME 'two words' --resume"
    assert shown.splitlines()[-1] == f"Go on after the last finished cell: {line}"


def test_the_command_line_answers_without_papermill() -> None:
    program = "import ipytune.cli, sys; assert not {'papermill', 'torch'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
