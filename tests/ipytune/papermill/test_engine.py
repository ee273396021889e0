"""The engine `hub` without a hub: what it refuses. Runs are in tests/hub/test_engine.py."""

import os
from pathlib import Path

import nbformat
import papermill
import pytest

from ipytune.papermill.errors import SettingsError


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("OBERALP_", "JUPYTERHUB_"))]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, "OBERALP_HUB"), ({"hub_url": "https://h"}, "token"), ({"profil": "gpu-1"}, "knows no profil.*profile")],
)
def test_settings_that_will_not_do_end_it_before_any_cell(
    tmp_path: Path, nowhere: None, settings: dict[str, str], words: str
) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in ("x = 1", "x")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    output = tmp_path / "out.ipynb"
    with pytest.raises(SettingsError, match=words):
        papermill.execute_notebook(
            tmp_path / "in.ipynb", output, engine_name="hub", progress_bar=False, parameters={}, **settings
        )
    cells = nbformat.read(output, as_version=4).cells
    assert [cell.metadata.papermill["status"] for cell in cells] == ["pending", "pending"]
