"""Bad parameters stop every notebook in its check cell, with the remedy, before anything is computed.

Injected by papermill's own function; the cells up to the check run in an IPython shell in this process. That the
message reaches who runs it, and the exit status, is shown once with the real command.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from traitlets.config import Config

from ipytune.lesson import ParameterError
from ipytune.memory.available import Available, Limit
from tests.notebooks.structure import assigned_literals, parsed

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def a_node_without_gpus_and_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("IPYTUNE_MODELS", raising=False)
    nothing = Available((Limit("all", 64 * 10**9),))
    monkeypatch.setattr("ipytune.lesson.surroundings.available", lambda: nothing)
    monkeypatch.setattr("ipytune.lesson.find_model", lambda name: tmp_path)  # no conversion
    monkeypatch.setattr("ipytune.lesson.lesson.free_gb", lambda folder: 1000.0)


def defaults(path: Path) -> dict[str, object]:
    cells = nbformat.read(path, as_version=4).cells
    return assigned_literals(parsed(next(cell for cell in cells if cell.cell_type == "code").source))


def checked(path: Path, **injected: Any) -> ParameterError | None:
    """What the check cell says, None when it lets pass."""
    notebook = parameterize_notebook(load_notebook_node(str(path)), injected)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))  # `In` is kept, no file is
    for source in code[: 2 + bool(injected)]:
        done = shell.run_cell(source, store_history=True)
        assert done.error_before_exec is None
        if done.error_in_exec is not None:
            assert isinstance(done.error_in_exec, ParameterError), done.error_in_exec
            assert "lesson.check" in source
            return done.error_in_exec
    return None


@every_notebook
def test_in_smoke_the_defaults_pass_and_a_session_s_request_is_no_parameter(path: Path) -> None:
    assert checked(path, PROFILE="smoke", profile="gpu-1", runtime="01:00:00") is None


@every_notebook
def test_a_misspelt_name_is_told_the_right_one(path: Path) -> None:
    error = checked(path, PROFIL="smoke")
    assert error is not None and "PROFIL: no parameter has this name. Did you mean PROFILE?" in error.findings


@every_notebook
def test_every_parameter_refuses_a_wrong_type_and_all_are_named_at_once(path: Path) -> None:
    wrong = {name: {"a": "mapping"} for name in defaults(path)}
    error = checked(path, **wrong)
    assert error is not None
    unsaid = [name for name in wrong if not any(finding.startswith(f"{name} = ") for finding in error.findings)]
    assert unsaid == []


@every_notebook
def test_files_folders_and_models_must_be_there(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    missing = {"MODEL": "org/absent", "DATA": "absent.jsonl"}
    given = {name: value for name, value in missing.items() if name in defaults(path)}
    error = checked(path, PROFILE="smoke", OUT_DIR="file/results", **given)
    assert error is not None
    assert len(error.findings) == 1 + len(given)
    for words in ("Remedy: name a folder", *(("hf download org/absent",) if "MODEL" in given else ())):
        assert words in str(error)
    assert not (tmp_path / path.stem).exists()


@every_notebook
def test_a_gpu_profile_without_a_gpu_says_where_there_are_some(path: Path) -> None:
    error = checked(path, PROFILE="gpu")
    assert error is not None
    if path.stem == "01-first-session":  # runs on what there is
        assert "PROFILE = 'gpu': allowed is one of 'smoke', 'full'." in error.findings
    else:
        assert 'PROFILE = "smoke"' in str(error) and "--engine hub -p profile gpu-" in str(error)


def test_papermill_shows_the_findings_without_a_traceback_and_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS[0]), "out.ipynb", "--no-progress-bar"]
    command += ["-p", "MAX_STEP", "3", "-p", "SEED", "minus one"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    said = done.stderr.split("ParameterError: ")[1].strip().splitlines()
    assert [line for line in said if line] == [
        "01-first-session cannot run like this:",
        "- MAX_STEP: no parameter has this name. Did you mean MAX_STEPS?",
        "- SEED = 'minus one': allowed is a whole number from 0 to 4294967295.",
    ]
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    errors = [out for cell in executed.cells if cell.cell_type == "code" for out in cell.outputs if "ename" in out]
    assert [(error.ename, "File" in "".join(error.traceback)) for error in errors] == [("ParameterError", False)]
