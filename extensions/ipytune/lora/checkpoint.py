"""Checkpoints: what a run needs to go on as if it had never stopped.

Guarantees
- `step-N` is written aside, flushed to disk and renamed: a directory of that name is whole, or was damaged later.
- `manifest.json` holds the checksum of every file; `latest` returns the newest checkpoint whose files still match.
- The state is tensors and numbers only: loading it runs no code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ipytune.lora.config import sha256_of
from ipytune.lora.model import Trainable

_NAME = re.compile(r"step-(\d+)")
_STATE = "state.pt"
_MANIFEST = "manifest.json"


@dataclass
class Progress:
    """Where a run is: counted over all its processes, from the first step on."""

    step: int = 0
    tokens: int = 0
    training_seconds: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    waited: int = 0
    """Evaluations since the best one."""
    peak_memory: int = 0
    """Bytes, of the GPU where one is used, else of the process."""

    def judge(self, eval_loss: float, min_delta: float) -> bool:
        """Counts an evaluation; whether it is the best so far, by at least `min_delta`."""
        better = self.best_loss is None or eval_loss < self.best_loss - min_delta
        if better:
            self.best_loss, self.best_step, self.waited = eval_loss, self.step, 0
        else:
            self.waited += 1
        return better


def save(folder: Path, model: Trainable, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
    """Writes folder/step-N and returns it; one that is there already and whole is kept."""
    directory = folder / f"step-{progress.step}"
    if directory.is_dir() and is_whole(directory):
        return directory
    aside = folder / f".step-{progress.step}.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    model.save(aside)
    torch.save({"optimizer": optimizer.state_dict(), "progress": asdict(progress)}, aside / _STATE)
    sums = {file.name: sha256_of(file) for file in sorted(aside.iterdir())}
    (aside / _MANIFEST).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    for file in aside.iterdir():
        _flush(file)
    shutil.rmtree(directory, ignore_errors=True)  # a damaged one of the same step
    aside.rename(directory)
    _flush(folder)
    return directory


def restore(directory: Path, model: Trainable, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts model and optimiser back as they were, and returns where the run was. Random numbers are not part of it:
    they are a function of seed and step."""
    state = torch.load(directory / _STATE, map_location="cpu", weights_only=True)
    model.load(directory)
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; None where there is none."""
    return next((directory for directory in _newest_first(folder) if is_whole(directory)), None)


def prune(folder: Path, keep: int, best: int | None = None) -> None:
    """Removes all but the newest `keep` checkpoints and that of step `best`, and what killed writers left."""
    for directory in list(_newest_first(folder))[keep:]:
        if directory.name != f"step-{best}":
            directory.rename(folder / f".{directory.name}.old.{os.getpid()}")  # a kill leaves no half under its name
    for left in folder.glob(".step-*"):
        shutil.rmtree(left)


def is_whole(directory: Path) -> bool:
    """Whether every file named in the manifest is there with its checksum."""
    try:
        sums: dict[str, str] = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        return _STATE in sums and all(sha256_of(directory / name) == sum_ for name, sum_ in sums.items())
    except (OSError, ValueError):
        return False


def _newest_first(folder: Path) -> Iterator[Path]:
    numbered = [(int(found[1]), path) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]
    return (path for _, path in sorted(numbered, reverse=True))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
