"""A batch of the tiny notebook, and jobs that do what a test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ipytune.batch.directory import Batch, BatchDirectory, SetStatus, State, Submission
from ipytune.batch.jobs import Ask
from ipytune.batch.states import Evidence
from ipytune.batch.submit import new_batch, read_notebook, submit
from ipytune.runs.directory import Process
from ipytune.runs.launch.base import LaunchError
from tests.ipytune.batch import tiny

PROCESS = Process(pid=1, host="nid000001", started="1")


@dataclass
class FakeJobs:
    """Takes every submission; its jobs live until `living` says otherwise."""

    living: bool = True
    words: str = ""
    ended: State = State.FAILED
    refusal: str | None = None
    asked: int = 0
    started: list[Submission] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    at_end: Callable[[], None] | None = None

    def plan(self, submission: Submission) -> Submission:
        return submission

    def preview(self, submission: Submission) -> str:
        return f"{len(submission.sets)} sets\n"

    def check(self) -> None:
        pass

    def start(self, submission: Submission) -> Submission:
        if self.refusal:
            raise LaunchError(self.refusal)
        self.started.append(submission)
        return submission

    def ask(self, submission: Submission) -> Ask:
        self.asked += 1
        return lambda number, said: Evidence(self.living, self.words, self.ended)

    def end(self, submission: Submission) -> None:
        self.ends.append(submission.mark)
        self.living = False
        if self.at_end is not None:
            self.at_end()

    def describe(self, submission: Submission) -> str:
        return "jobs of a test"


def says(directory: BatchDirectory, number: int, state: State, error: str | None = None) -> None:
    """What the worker of a set says, in its last submission."""
    batch = directory.read()
    submission = batch.last_submission(number)
    assert submission is not None
    now = datetime.now(timezone.utc)
    status = SetStatus(
        submission=submission.mark,
        state=state,
        process=PROCESS,
        started_at=now,
        ended_at=now if state.final else None,
        error=error,
    )
    directory.set(number, len(batch.sets)).write_status(status)


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def asked(tmp_path: Path) -> tuple[BatchDirectory, Batch, bytes, dict[str, Any]]:
    """Three ranks of the tiny notebook, not submitted yet."""
    content, names = read_notebook(tiny.write(tmp_path / "tiny.ipynb"))
    sets = ({"RANK": 8}, {"RANK": 16}, {"RANK": 32})
    batch = new_batch(tmp_path / "tiny.ipynb", content, cwd=str(tmp_path), on="session", sets=sets)
    return BatchDirectory(tmp_path / "batch"), batch, content, names


@pytest.fixture
def directory(asked: tuple[BatchDirectory, Batch, bytes, dict[str, Any]], jobs: FakeJobs) -> BatchDirectory:
    """The same, submitted."""
    submit(*asked, jobs)
    return asked[0]
