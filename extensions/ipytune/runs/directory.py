"""The directory of one run: all that a panel, a command line or a notebook knows of it.

Guarantees
- `status.json`, `process.json` and `report.json` are replaced atomically: a reader sees the old or the new, never half.
- `events.jsonl` only grows; a reader continues from the byte where it stopped. A line torn by a killed writer is
  skipped by readers and closed by the next writer.
- `control/NAME` is a request; whoever carries it out removes it.
- A directory counts as a run once it holds `config.yaml`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ipytune.runs.status import Status

STOP = "stop"
CHECKPOINT_NOW = "checkpoint-now"


class Process(BaseModel):
    """Who trains: enough to tell, later and from another process, whether it still lives."""

    model_config = ConfigDict(frozen=True)

    pid: int
    host: str
    started: str | None
    """Start time as the kernel counts it, so that a reused pid is not taken for the run; None where unknown."""


class RunDirectory:
    """Reads and writes the files of a run. Makes nothing on disk until something is written."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser().absolute()
        self.config = self.path / "config.yaml"
        self.status = self.path / "status.json"
        self.process = self.path / "process.json"
        self.events = self.path / "events.jsonl"
        self.control = self.path / "control"
        self.checkpoints = self.path / "checkpoints"
        self.adapter = self.path / "adapter"
        self.report = self.path / "report.json"
        self.log = self.path / "train.log"

    @property
    def exists(self) -> bool:
        return self.config.is_file()

    def create(self, config_yaml: str) -> None:
        self.control.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        replace_text(self.config, config_yaml)

    def read_status(self) -> Status:
        """The last status, or the status of a run that has not begun."""
        try:
            return Status.model_validate_json(self.status.read_bytes())
        except FileNotFoundError:
            return Status()

    def write_status(self, status: Status) -> None:
        replace_text(self.status, status.model_dump_json(indent=1))

    def read_process(self) -> Process | None:
        try:
            return Process.model_validate_json(self.process.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write_process(self, process: Process) -> None:
        replace_text(self.process, process.model_dump_json())

    def read_report(self) -> dict[str, Any]:
        return dict(json.loads(self.report.read_text(encoding="utf-8")))

    def write_report(self, report: dict[str, Any]) -> None:
        replace_text(self.report, json.dumps(report, indent=1))

    def append_event(self, kind: str, **fields: Any) -> None:
        line = json.dumps({"kind": kind, **fields}) + "\n"
        with self.events.open("ab+") as file:
            if file.seek(0, os.SEEK_END) and not _ends_line(file.fileno(), file.tell()):
                line = "\n" + line
            file.write(line.encode())

    def read_events(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Events from byte `offset` on, and the offset to continue from; a line still being written waits."""
        try:
            with self.events.open("rb") as file:
                file.seek(offset)
                content = file.read()
        except FileNotFoundError:
            return [], offset
        whole = content[: content.rfind(b"\n") + 1]
        events = (_parsed(line) for line in whole.splitlines())
        return [event for event in events if event is not None], offset + len(whole)

    def ask(self, request: str) -> None:
        self.control.mkdir(parents=True, exist_ok=True)
        (self.control / request).touch()

    def asked(self, request: str) -> bool:
        return (self.control / request).exists()

    def done(self, request: str) -> None:
        (self.control / request).unlink(missing_ok=True)

    def log_tail(self, n: int = 30) -> str:
        """The last n lines of what the training process printed; reads at most the last 64 KiB."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-n:])


def replace_text(path: Path, text: str) -> None:
    """Writes beside, then renames: readers never see half a file, two writers never mix."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _ends_line(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None  # torn by a writer that was killed; the record it belonged to is lost with it
    return event if isinstance(event, dict) else None


def curve(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The metric records of a run as one curve: steps that were repeated after a crash appear once, as repeated."""
    points: list[dict[str, Any]] = []
    for event in events:
        if event.get("kind") == "resumed":
            points = [point for point in points if point["step"] <= event["step"]]
        elif event.get("kind") == "metric":
            points.append(event)
    return points


def evaluations(events: Iterable[dict[str, Any]]) -> dict[int, float]:
    """Step -> loss on the held-out conversations. Of a step that was done or measured again, the last word."""
    losses: dict[int, float] = {}
    for event in events:
        step, loss = event.get("step"), event.get("eval_loss")
        if not isinstance(step, int):
            continue
        if event.get("kind") == "resumed":
            losses = {earlier: known for earlier, known in losses.items() if earlier <= step}
        elif event.get("kind") == "evaluation" and isinstance(loss, (int, float)):
            losses[step] = float(loss)
    return losses
