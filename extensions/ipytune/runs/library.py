"""The runs of a folder, a line for each.

Guarantees
- A directory that is damaged or half written is listed as such; it never hides the others.
- What is read of a run does not grow with its length: its small files, and the two ends of events.jsonl.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from ipytune.runs.directory import RunDirectory
from ipytune.runs.process import Run
from ipytune.runs.status import Phase, Status

_STARTING_SECONDS = 30.0  # from the directory's creation to its process's first word
_HEAD, _TAIL = 4096, 65536  # bytes of events.jsonl: its first record; the last metric even behind long samples
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where PyYAML has libyaml


@dataclass(frozen=True)
class RunSummary:
    """What a list shows of one run. None: not known (yet)."""

    path: Path
    phase: Phase | None
    """None: damaged, see `problem`."""
    problem: str | None = None
    """Why the run failed, or what is damaged, in a sentence."""
    model: str | None = None
    data: Path | None = None
    """Its train_file."""
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    eval_loss: float | None = None
    """On held-out conversations, in nats per token, as the last evaluation gave it."""
    started: datetime | None = None
    """When it was started first; a continued run keeps it."""
    seconds: float | None = None
    """Spent training, over all of its processes in turn; loading is not counted."""
    adapter: bool = False
    size: int = 0
    """Bytes on disk."""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def state(self) -> str:
        """In words: `completed`, `loading model`, `damaged`."""
        return "damaged" if self.phase is None else str(self.phase).replace("_", " ")


def runs(folder: Path | str) -> list[RunSummary]:
    """The runs directly in `folder`, newest first; directories that hold nothing of a run are left out.

    Raises FileNotFoundError when there is no such folder.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Name the one in which your run directories are.")
    found = [summary(path) for path in folder.iterdir() if _holds_a_run(path)]
    return sorted(found, key=lambda run: (-(run.started.timestamp() if run.started else 0.0), run.name))


def summary(run_dir: Path | str) -> RunSummary:
    """One run's line. Never raises: what cannot be read is told in `problem`."""
    directory = RunDirectory(run_dir)
    problems: list[str] = []
    settings: dict[str, Any] = {}
    status, report = Status(), dict[str, Any]()
    try:
        settings = _settings(directory)
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"config.yaml cannot be read ({_short(error)})")
    try:
        status = Run(directory).status()
    except (OSError, ValueError) as error:
        problems.append(f"status.json cannot be read ({_short(error)})")
    try:
        report = directory.read_report()
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError) as error:
        problems.append(f"report.json cannot be read ({_short(error)})")
    first, last = _ends(directory.events)
    train_file = settings.get("train_file")
    why = status.error.splitlines()[0] if status.error else None
    if not any(map(_is_there, _own_files(directory))) and not is_being_made(directory):
        why = "made, but never started"
    return RunSummary(
        path=directory.path,
        phase=None if problems else status.phase,
        problem="; ".join(problems) or why,
        model=_text(settings.get("model")),
        data=Path(train_file) if isinstance(train_file, str) else None,
        step=status.step,
        total_steps=status.total_steps,
        loss=_number(status.loss, report.get("loss")),
        eval_loss=_number(status.eval_loss, report.get("eval_loss")),
        started=_time(first.get("time")) or _made(directory.config),
        seconds=_number(last.get("elapsed_seconds"), report.get("training_seconds")),
        adapter=_is_there(directory.adapter / "adapter_model.safetensors"),
        size=size_of(directory.path),
    )


def is_run(directory: RunDirectory) -> bool:
    """Whether a directory is a run's. A config.yaml alone is not enough: that may be one somebody wrote by hand."""
    made = directory.control.is_dir() and directory.checkpoints.is_dir()
    return directory.exists and (made or any(map(_is_there, _own_files(directory))))


def is_being_made(directory: RunDirectory) -> bool:
    """Whether the directory is so young that its training process may not have written its first word."""
    try:
        return time.time() - directory.config.stat().st_mtime < _STARTING_SECONDS
    except OSError:
        return False


def files_in(folder: Path) -> Iterator[Path]:
    """All files and links under a folder, links not followed; what vanishes meanwhile is left out."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files_in(Path(entry.path))
        else:
            yield Path(entry.path)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return _size(path) if path.is_file() else sum(_size(file) for file in files_in(path))


def _holds_a_run(path: Path) -> bool:
    """Whether to list a directory: it is a run, or has lost its config.yaml."""
    directory = RunDirectory(path)
    try:
        return path.is_dir() and (is_run(directory) or any(map(_is_there, _own_files(directory))))
    except OSError:  # somebody else's, in a folder that is shared
        return False


def _own_files(directory: RunDirectory) -> tuple[Path, ...]:
    return (directory.status, directory.process, directory.events)


def _settings(directory: RunDirectory) -> dict[str, Any]:
    settings = yaml.load(directory.config.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a safe loader
    if not isinstance(settings, dict):
        raise ValueError("it holds no settings")
    return settings


def _ends(events: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first record of a run, and the last metric (or nothing)."""
    try:
        with events.open("rb") as file:
            head = file.readline(_HEAD)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            tail = file.read().splitlines()
    except OSError:
        return {}, {}
    metrics = (event for line in reversed(tail) if (event := _record(line)).get("kind") == "metric")
    return _record(head), next(metrics, {})


def _record(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}  # torn, or cut by where the reading began
    return event if isinstance(event, dict) else {}


def _time(written: object) -> datetime | None:
    try:
        time_ = datetime.fromisoformat(str(written))
    except ValueError:
        return None
    return time_ if time_.tzinfo else time_.replace(tzinfo=timezone.utc)


def _made(config: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(config.stat().st_mtime, timezone.utc)
    except OSError:
        return None


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _number(*candidates: object) -> float | None:
    return next((float(value) for value in candidates if isinstance(value, (int, float))), None)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
