"""Deleting a run: what a run wrote, and nothing else.

Guarantees
- Nothing is removed of a run that trains, of a directory that is no run, or through a link.
- A file that a run does not write (notes, a merged model) is kept and named, and so is the folder that holds it.
- status.json and config.yaml go last: a deletion that is interrupted leaves a run that can be deleted again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ipytune.runs.directory import RunDirectory
from ipytune.runs.library import files_in, is_being_made, is_run
from ipytune.runs.process import Run, alive
from ipytune.runs.status import Status

_STATE_FILES = r"(config\.yaml|(status|process|report|mlflow|proof)\.json)"
_ADAPTER_FILES = (
    r"(adapter_config\.json|adapter_model\.safetensors|README\.md|tokenizer(_config)?\.json|chat_template\.(jinja|json)"
    r"|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt)"
)
_CHECKPOINT = r"checkpoints/\.?step-\d+(\.\w+)*"
_ADAPTER = r"(adapter|\.adapter\.\w+)"

# Paths relative to the run directory. Those with a dot in front are what killed writers left.
_WRITTEN = re.compile(
    "|".join(
        (
            rf"{_STATE_FILES}|events\.jsonl|train\.log",
            rf"\.{_STATE_FILES}\.\d+",
            r"control/(stop|checkpoint-now)",
            rf"{_CHECKPOINT}/({_ADAPTER_FILES}|[\w.-]+\.pt|manifest\.json)",
            r"checkpoints/\.?[\w-]+\.(pt|safetensors)(\.\d+)?",
            rf"{_ADAPTER}/{_ADAPTER_FILES}",
            r"tensorboard/events\.out\.tfevents\.[^/]+",
            r"launch/\.?(launched\.json|job\.(json|sbatch))(\.\d+)?",
        )
    )
)
_FOLDERS = re.compile(rf"control|checkpoints|{_CHECKPOINT}|{_ADAPTER}|tensorboard|launch")
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Removal:
    """What deleting a run removes and keeps; paths are relative to the run's directory."""

    run: Path
    removed: tuple[Path, ...]
    kept: tuple[Path, ...]
    size: int
    """Bytes of what is removed."""


def plan_removal(run_dir: Path | str) -> Removal:
    """What `delete` would do. Raises ValueError for a directory that is no run, is a link, or holds a run that
    trains."""
    directory = RunDirectory(run_dir)
    path = directory.path
    if path.is_symlink():
        raise ValueError(f"{path} is a link. Name the directory that it points to: {path.resolve()}.")
    if not is_run(directory):
        raise ValueError(f"{path} holds no run, so nothing is deleted. A run has config.yaml and status.json.")
    if (status := _training(directory)) is not None:
        raise ValueError(
            f"{path} is {str(status.phase).replace('_', ' ')} ({Run(directory).runner}), so nothing is deleted. Stop "
            f"it first: Run.open(...).stop(). If you know that it is gone, remove process.json and launch/ there."
        )
    files = sorted(file.relative_to(path) for file in files_in(path))
    removed = tuple(file for file in files if _is_written(path, file))
    kept = tuple(file for file in files if file not in set(removed))
    return Removal(path, removed, kept, sum((path / file).lstat().st_size for file in removed))


def delete(run_dir: Path | str) -> Removal:
    """Removes a run's files, then its folders that are empty; returns what was removed and what was kept.

    Raises what `plan_removal` raises, and OSError when the system refuses (nothing else is undone)."""
    plan = plan_removal(run_dir)
    last = (RunDirectory(plan.run).status, RunDirectory(plan.run).config)
    for file in plan.removed:
        if plan.run / file not in last:
            (plan.run / file).unlink(missing_ok=True)
    folders = [path for path in plan.run.rglob("*") if path.is_dir() and not path.is_symlink()]
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if _FOLDERS.fullmatch(folder.relative_to(plan.run).as_posix()) and not any(folder.iterdir()):
            folder.rmdir()
    for path in last:
        path.unlink(missing_ok=True)
    if not any(plan.run.iterdir()):
        plan.run.rmdir()
    return plan


def _is_written(run: Path, file: Path) -> bool:
    """Whether the run wrote it: by its name, or because the checkpoint that it is in lists it."""
    if _WRITTEN.fullmatch(file.as_posix()):
        return True
    if not re.fullmatch(_CHECKPOINT, file.parent.as_posix()):
        return False
    try:
        listed = json.loads((run / file.parent / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(listed, dict) and file.name in listed


def _training(directory: RunDirectory) -> Status | None:
    """The status of a run that trains or is about to; None when nobody does."""
    try:
        status = Run(directory).status()
    except ValueError:  # status.json is damaged: its process decides
        process = directory.read_process()
        return Status() if process is not None and alive(process) else None
    if status.phase.final:
        return None
    never_started = not directory.status.exists() and directory.read_process() is None
    return None if never_started and not is_being_made(directory) else status
