"""The output file: saved in one step, never with a word that is not true."""

from __future__ import annotations

import copy
import stat
from pathlib import Path
from typing import Any

import nbformat
import pytest

from ipytune.papermill import resume
from ipytune.papermill.cells import Output, _plan
from ipytune.papermill.resume import BANNER, CannotResume
from tests.ipytune.papermill import notebooks

RUN = "0" * 32


def parameterized(path: Path) -> Any:
    """As papermill hands a notebook to an engine."""
    notebook = notebooks.read(path)
    notebook.metadata.papermill = {}
    for cell in notebook.cells:
        cell.metadata.papermill = {}
    return notebook


def output(notebook: Any, path: Path, plan: resume.Plan | None = None) -> Output:
    return Output(notebook, plan, RUN, output_path=str(path), progress_bar=False)


@pytest.fixture
def notebook(tmp_path: Path) -> Any:
    return parameterized(notebooks.write(tmp_path / "in.ipynb", "a = 1", "b = 2", "c = 3"))


def test_a_run_that_stops_says_where_and_leaves_the_rest_pending(notebook: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.ipynb"
    run = output(notebook, path)
    run.notebook_start()
    run.cell_start(run.nb.cells[0], 0)
    run.cell_complete(run.nb.cells[0], 0)
    run.cell_start(run.nb.cells[1], 1)
    run.stopped(1, "its kernel died.")
    run.cell_complete(run.nb.cells[1], 1)
    run.notebook_complete()
    assert notebooks.statuses(path) == ["completed", "failed", "pending"]
    saved = notebooks.read(path)
    assert "its kernel died" in saved.cells[1].source and resume.tags(saved.cells[1]) == [BANNER]
    assert saved.metadata.papermill["exception"] is True
    assert len(resume.code_cells(saved)) == 3


def test_nothing_kept_is_lost_when_the_run_begins(notebook: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.ipynb"
    old = output(copy.deepcopy(notebook), path)
    old.notebook_start()
    old.nb.cells[0].outputs = [nbformat.v4.new_output("stream", text="kept")]
    old.nb.cells[0].execution_count = 1
    for cell in old.nb.cells[:1]:
        old.cell_start(cell, 0)
        old.cell_complete(cell, 0)
    before = notebooks.read(path)
    plan = _plan(notebook, str(path))
    assert plan and len(plan.kept) == 1
    output(notebook, path, plan).notebook_start()
    assert notebooks.texts(path) == ["kept", "", ""]
    assert notebooks.read(path).cells[0].metadata == before.cells[0].metadata


def test_a_save_that_fails_leaves_the_last(notebook: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.ipynb"
    run = output(notebook, path)
    run.notebook_start()
    whole = path.read_bytes()
    run.nb.metadata["what no file holds"] = object()
    with pytest.raises(TypeError):
        run.save()
    assert path.read_bytes() == whole
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.ipynb", "out.ipynb"]


def test_a_file_keeps_its_mode(notebook: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.ipynb"
    path.touch()
    path.chmod(0o640)
    output(notebook, path).notebook_start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_is_no_notebook_is_not_gone_on_from(notebook: Any, tmp_path: Path) -> None:
    (tmp_path / "out.ipynb").write_text("no notebook")
    with pytest.raises(CannotResume, match="cannot be read as a notebook"):
        _plan(notebook, str(tmp_path / "out.ipynb"))
    assert _plan(notebook, str(tmp_path / "missing.ipynb")) is None
