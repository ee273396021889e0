"""papermill finds both engines, whichever of the two is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "first", ["papermill", "papermill.iorw", "ipytune.papermill.resume", "ipytune.papermill.local", "ipytune.cli_run"]
)
def test_engines_are_found(first: str) -> None:
    program = (
        f"import {first}, sys\n"
        "from papermill.engines import papermill_engines\n"
        "for name in ('hub', 'resumable'):\n"
        "    print(papermill_engines.get_engine(name).__name__)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["HubEngine", "ResumableEngine"], done.stderr
