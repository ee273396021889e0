"""What is made of a finished run beside its directory: a merged model, a GGUF file, a model card. Knows no widget.

Each is the command of the same name in a process of its own, which gives its memory back.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


class ExportFailed(RuntimeError):
    """An adapter that could not be merged or written; `why` is what the command said."""

    def __init__(self, what: str, why: str, remedy: str = "") -> None:
        super().__init__(f"{what} {why} {remedy}".strip())
        self.what, self.why, self.remedy = what, why, remedy


def merge(run: Path, out: Path) -> None:
    """Merge the adapter into its base, and prove that it answers alike."""
    _command("The adapter could not be merged.", "merge", str(run), "--out", str(out))


def gguf(run: Path, merged: Path, out: Path) -> None:
    """Write the merged model as a GGUF file, and prove that it answers alike."""
    _command("The GGUF file could not be written.", "gguf", str(merged), "--out", str(out), "--against", str(run))


def card(run: Path) -> None:
    """Write the model card beside the adapter."""
    _command("The model card could not be written.", "card", str(run))


def _command(what: str, *arguments: str) -> None:
    """Run `ipytune`. Raises ExportFailed with what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "ipytune", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).removeprefix("ipytune: ")
        raise ExportFailed(what, said[-2000:] or f"The command ended with status {done.returncode}.")
