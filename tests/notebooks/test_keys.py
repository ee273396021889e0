"""A key that a user types into a panel, or names, is in no executed notebook. (That each notebook runs unattended and
leaves its numbers is `python -m tests.notebooks`.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]
TYPED, REFERENCED = "typed-SECRET-4711", "referenced-SECRET-0815"


def papermill(notebook: Path, folder: Path, *parameters: str, **environment: str) -> nbformat.NotebookNode:
    """Execute a copy in `folder`, as a user or a nightly job would; the executed notebook."""
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "--no-progress-bar", *parameters]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(folder / "out.ipynb", as_version=4)


def widget_states(notebook: nbformat.NotebookNode) -> list[dict[str, object]]:
    models = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    return [model["state"] for model in models]


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
    done = papermill(tmp_path / "keys.ipynb", tmp_path, TYPED=TYPED, A_KEY=REFERENCED, PYTHONPATH=str(ROOT))
    saved = (tmp_path / "out.ipynb").read_text()
    assert "hello there" in saved
    assert any(state.get("turns") for state in widget_states(done))
    assert TYPED not in saved and REFERENCED not in saved
