"""The engine `hub` without a hub: what it refuses, whose signals are whose. Runs are in tests/hub/test_engine.py."""

import os
import signal
from pathlib import Path

import nbformat
import papermill
import pytest

from ipytune.papermill.cells import Terminated
from ipytune.papermill.engine import _ended_by_signals, _held_signals
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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_an_exception_once_and_handlers_are_put_back(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Terminated) as ended, _ended_by_signals():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # while it cleans up
    assert ended.value.code == status
    assert signal.getsignal(number) is before


def test_stopping_is_cut_short_by_the_second_signal_only() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Terminated), _held_signals(said.append):
        signal.raise_signal(signal.SIGINT)
        assert "once more" in said[0]
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
