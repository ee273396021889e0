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


def test_a_client_needs_nothing_that_trains() -> None:
    """A laptop, or CI: docs/user/unattended.md names what is installed there, and it is not these."""
    program = (
        "import sys\n"
        "absent = 'torch transformers peft gguf safetensors ipywidgets anywidget numpy regex'\n"
        "sys.modules.update(dict.fromkeys(absent.split()))\n"
        "import ipytune.papermill.engine\n"
        "from ipytune.cli import app\n"
        "app(['run', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--resume" in done.stdout, done.stderr
