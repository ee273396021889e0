"""Notebook 01 runs unattended from a copy elsewhere, leaves its numbers, a notebook that can be read without a kernel,
no process, and no secret."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01-first-session.ipynb"
TYPED, REFERENCED = "typed-SECRET-4711", "referenced-SECRET-0815"


def papermill(notebook: Path, folder: Path, *parameters: str, **environment: str) -> nbformat.NotebookNode:
    """Execute a copy in `folder`, as a user or a nightly job would; the executed notebook."""
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "--no-progress-bar", *parameters]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(folder / "out.ipynb", as_version=4)


def html_of(notebook: nbformat.NotebookNode, words: str) -> str:
    """The static picture in the output of the cell that shows a panel; the one that contains `words`."""
    pictures = [
        output["data"]["text/html"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    return next(picture for picture in pictures if words in picture)


def widget_states(notebook: nbformat.NotebookNode) -> list[dict[str, object]]:
    models = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    return [model["state"] for model in models]


def test_the_repository_holds_no_outputs_and_its_parameters_are_tagged() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].metadata["tags"] == ["parameters"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert "widgets" not in notebook.metadata


@pytest.mark.timeout(900)
def test_it_runs_unattended_and_leaves_numbers_and_pictures(tmp_path: Path) -> None:
    shutil.copy(NOTEBOOK, tmp_path / "copy.ipynb")
    done = papermill(tmp_path / "copy.ipynb", tmp_path, "-p", "SMOKE", "True", "-p", "EVAL_LIMIT", "4")

    metrics = json.loads((tmp_path / "first-session" / "metrics.json").read_text())
    assert metrics["smoke"] is True and metrics["exact_match_n"] == 4
    assert metrics["training"]["loss"] < metrics["training"]["first_loss"]
    assert metrics["chat"]["output_tokens"] > 0 and metrics["chat"]["ttft_seconds"] > 0
    assert set(metrics["side_by_side"]) == {"base", "tuned"}

    # The last state of the panels is in the file, though the cells that showed them had ended long before.
    training = html_of(done, "Fine-tuning")
    assert "<svg" in training and "completed" in training
    assert "#SBATCH" in html_of(done, "Side by side")
    assert any(state.get("phase") == "completed" for state in widget_states(done))


def test_neither_a_typed_nor_a_referenced_key_is_saved(tmp_path: Path) -> None:
    source = """
        import os
        from tests.ipytune.endpoints.mock_server import mock_server
        from ipytune.endpoints import Endpoint, chat
        from ipytune.widgets import ChatPanel, compare
        context = mock_server()
        mock = context.__enter__()
        referenced = Endpoint(name="a", base_url=mock.url, model="m", key_env="A_KEY")
        typed = Endpoint(name="b", base_url=mock.url, model="m")
        panel = ChatPanel([referenced, typed])
        panel
        ---
        # What the browser's message does when somebody types a key: its value stands in no cell.
        panel._on_message(panel, {"do": "key", "value": os.environ["TYPED"]}, [])
        panel.set_key(os.environ["TYPED"], endpoint=1)
        answers = [panel.ask("hi", endpoint=0), panel.ask("hi", endpoint=1), chat(referenced, "hi")]
        both = compare([referenced, typed], "hi")
        answers, referenced, panel
        ---
        sent = [request.headers.get("authorization") for request in mock.requests]
        assert sent[1] == "Bearer " + os.environ["TYPED"] and sent[2] == "Bearer " + os.environ["A_KEY"]
        context.__exit__(None, None, None)
    """
    cells = ["\n".join(line.strip() for line in part.strip().splitlines()) for part in source.split("---")]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, tmp_path / "keys.ipynb")
    root = str(NOTEBOOK.parents[1])
    done = papermill(tmp_path / "keys.ipynb", tmp_path, TYPED=TYPED, A_KEY=REFERENCED, PYTHONPATH=root)
    saved = (tmp_path / "out.ipynb").read_text()
    assert "hello there" in saved
    assert any(state.get("turns") for state in widget_states(done))
    assert TYPED not in saved and REFERENCED not in saved
