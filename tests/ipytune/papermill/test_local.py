"""A run that stops here, whatever stopped it, is gone on with: finished cells do not run again, their variables are
there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import papermill
import pytest
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from tests.ipytune.papermill import notebooks

LIMIT = 90.0

COUNT = "open('counted', 'a').write('{}')"
"""In a cell: how often it ran."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def execute(**settings: Any) -> None:
    papermill.execute_notebook("in.ipynb", "out.ipynb", engine_name="resumable", progress_bar=False, **settings)


def records() -> list[Path]:
    return list(Path("state/ipytune/resume").glob("*/record.json"))


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"waited {LIMIT:.0f} s for {what}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_failed_run_is_gone_on_with(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    notebooks.write(
        home / "in.ipynb",
        "N = 3",
        "import os, threading\n" + COUNT.format("a") + "\n"
        "numbers = [N]\nother = {'n': numbers}\n"
        "def total(): return sum(numbers)\nprint('first', total())",
        COUNT.format("b") + "; lock = threading.Lock()",
        COUNT.format("c") + "; numbers.append(4); print('second')",
        "assert os.path.exists('mended'), 'not yet'",
        "with lock: print(total(), other['n'] is numbers); N",
    )
    with pytest.raises(PapermillExecutionError, match="not yet"):
        execute()
    assert notebooks.statuses(home / "out.ipynb") == ["completed"] * 4 + ["failed", "pending"]
    before = {cell.source: cell.metadata for cell in notebooks.read(home / "out.ipynb").cells}
    assert len(records()) == 1

    (home / "mended").touch()
    caplog.set_level("INFO", logger="ipytune.papermill")
    execute(resume=True)
    assert (home / "counted").read_text() == "abcb"
    assert "Running cell 3 again: lock could not be kept" in caplog.text
    assert "Going on at cell 5 of 6: cell 5 failed." in caplog.text
    out = notebooks.read(home / "out.ipynb")
    assert notebooks.texts(home / "out.ipynb") == ["", "first 3\n", "", "second\n", "", "7 True\n"]
    assert [cell.execution_count for cell in out.cells] == [1, 2, 3, 4, 5, 6]
    assert out.cells[1].metadata == before[out.cells[1].source]  # with its timings
    assert out.metadata.papermill["exception"] is None
    assert records() == []


def test_a_dead_kernel_takes_no_finished_cell_with_it(home: Path) -> None:
    notebooks.write(
        home / "in.ipynb",
        "x = 1",
        "import os, subprocess\nsleeper = subprocess.Popen(['sleep', '1000']).pid; print(sleeper)\nx = 2",
        "if not os.path.exists('mended'):\n    os._exit(1)",
        "print(x)",
    )
    with pytest.raises(DeadKernelError):
        execute()
    assert notebooks.statuses(home / "out.ipynb") == ["completed", "completed", "failed", "pending"]
    assert "its kernel died" in notebooks.read(home / "out.ipynb").cells[2].source
    sleeper = int(notebooks.texts(home / "out.ipynb")[1])
    wait(lambda: not alive(sleeper), "what the kernel had started to end")
    (home / "mended").touch()
    execute(resume=True)
    assert notebooks.texts(home / "out.ipynb")[3] == "2\n"
    assert notebooks.statuses(home / "out.ipynb") == ["completed"] * 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_is_gone_on_with(home: Path, number: signal.Signals) -> None:
    notebooks.write(
        home / "in.ipynb",
        "x = 1",
        "import os, time\nx = 2; print('pid', os.getpid())",
        COUNT.format("c") + "\nwhile not os.path.exists('mended'): time.sleep(0.1)",
        "print(x)",
    )
    command = [sys.executable, "-m", "ipytune", "run", "in.ipynb", "out.ipynb", "--engine", "resumable"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait((home / "counted").exists, "the cell to run")
        kernel = int(notebooks.texts(home / "out.ipynb")[1].split()[1])
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    wait(lambda: not alive(kernel), "the kernel to end")
    statuses = notebooks.statuses(home / "out.ipynb")
    assert statuses[:2] == ["completed"] * 2 and statuses[3] == "pending"
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert said.splitlines()[-1].endswith("ipytune run in.ipynb out.ipynb --engine resumable --resume")
        assert "Traceback" not in said
        assert statuses[2] == "failed"
        assert "asked to end" in notebooks.read(home / "out.ipynb").cells[2].source
    (home / "mended").touch()
    execute(resume=True)
    assert notebooks.texts(home / "out.ipynb")[3] == "2\n"
    assert notebooks.statuses(home / "out.ipynb") == ["completed"] * 4
    assert (home / "counted").read_text() == "cc"


def test_without_state_finished_cells_run_again(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    notebooks.write(
        home / "in.ipynb", "x = 1", COUNT.format("a"), "import os; assert os.path.exists('mended')", "print(x)"
    )
    with pytest.raises(PapermillExecutionError):
        execute(state=False)
    assert not (home / "state").exists()
    (home / "mended").touch()
    execute(resume=True, state=False)
    assert "No variables of the finished cells are left: they run again." in caplog.text
    assert (home / "counted").read_text() == "aa"
    assert notebooks.texts(home / "out.ipynb")[3] == "1\n"


def test_a_silent_cell_is_saved_as_well(home: Path) -> None:
    """The cell itself sees in the output file what it has printed, long before it ends."""
    notebooks.write(
        home / "in.ipynb",
        "import time, pathlib",
        "print('a word', flush=True)\n"
        "end = time.monotonic() + 60\n"
        "while 'a word\\\\n' not in pathlib.Path('out.ipynb').read_text():\n"
        "    assert time.monotonic() < end\n"
        "    time.sleep(0.1)",
    )
    execute(autosave_cell_every=1)
