"""A batch is made whole or not at all, resumed with what is unfinished, and cancelled with proof."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ipytune.batch import submit as module
from ipytune.batch.directory import Batch, BatchDirectory, BatchError, State, make
from ipytune.batch.overview import Overview
from ipytune.batch.submit import cancel, read_notebook, resume, submit
from ipytune.runs.launch.base import LaunchError
from ipytune.runs.launch.pids import identify
from tests.ipytune.batch.conftest import FakeJobs, says

Asked = tuple[BatchDirectory, Batch, bytes, dict[str, Any]]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)


def states(directory: BatchDirectory, jobs: FakeJobs) -> list[State]:
    return [row.state for row in Overview(directory, jobs).rows()]


def test_a_batch_holds_all_that_its_jobs_need(directory: BatchDirectory, jobs: FakeJobs) -> None:
    assert jobs.started[0].sets == (0, 1, 2)
    assert directory.read().submissions == tuple(jobs.started)
    folder = directory.path / "001"
    assert yaml.safe_load((folder / "parameters.yaml").read_text()) == {"OUT_DIR": str(folder / "results"), "RANK": 16}
    assert states(directory, jobs) == [State.QUEUED] * 3


def test_a_refused_batch_leaves_nothing(asked: Asked, jobs: FakeJobs, tmp_path: Path) -> None:
    jobs.refusal = "Slurm did not take it"
    with pytest.raises(LaunchError, match="did not take"):
        submit(*asked, jobs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.ipynb"]


def test_what_is_there_is_not_written_over(directory: BatchDirectory, asked: Asked, jobs: FakeJobs) -> None:
    before = directory.file.read_bytes()
    with pytest.raises(BatchError, match="--resume"):
        submit(*asked, jobs)
    assert directory.file.read_bytes() == before
    assert not list(directory.path.parent.glob(".*"))


def test_resuming_runs_what_is_not_done_and_leaves_what_lives(directory: BatchDirectory, jobs: FakeJobs) -> None:
    says(directory, 0, State.DONE)
    says(directory, 1, State.FAILED, "ValueError: no")
    directory.set(1, 3).ask_to_stop(State.CANCELLED)
    submission, rows = resume(directory, jobs)
    assert submission is not None and submission.sets == (1,)
    assert [row.state for row in rows] == [State.DONE, State.FAILED, State.QUEUED]
    assert states(directory, jobs) == [State.DONE, State.QUEUED, State.QUEUED]  # the failure was of another submission
    assert directory.set(1, 3).asked_to_stop() is None
    assert resume(directory, jobs)[0] is None


def test_what_died_without_a_word_is_resumed(directory: BatchDirectory, jobs: FakeJobs) -> None:
    says(directory, 0, State.RUNNING)
    jobs.living, jobs.words, jobs.ended = False, "reached its walltime", State.OUT_OF_TIME
    rows = Overview(directory, jobs).rows()
    assert [row.state for row in rows] == [State.OUT_OF_TIME] * 3
    assert rows[0].words == "its job reached its walltime"
    assert rows[1].words == "its job reached its walltime before it began"
    submission, _ = resume(directory, jobs)
    assert submission is not None and submission.sets == (0, 1, 2)


def test_a_submitter_that_died_before_it_submitted_lost_nothing(asked: Asked, jobs: FakeJobs) -> None:
    directory, batch, content, _ = asked
    make(directory, batch, content, [dict(one) for one in batch.sets])
    assert [row.words for row in Overview(directory, jobs).rows()] == ["was never submitted"] * 3
    submission, _ = resume(directory, jobs)
    assert submission is not None and submission.sets == (0, 1, 2)


def test_a_refused_resumption_changes_nothing(directory: BatchDirectory, jobs: FakeJobs) -> None:
    says(directory, 1, State.FAILED)
    before = directory.read()
    jobs.refusal = "no"
    with pytest.raises(LaunchError):
        resume(directory, jobs)
    assert directory.read() == before


def test_one_at_a_time_and_a_dead_one_s_lock_is_taken_over(directory: BatchDirectory, jobs: FakeJobs) -> None:
    with directory.locked(), pytest.raises(BatchError, match="locked.json"):
        resume(directory, jobs)
    gone = identify(os.getpid()).model_copy(update={"started": "0"})
    (directory.path / "locked.json").write_text(gone.model_dump_json())
    with directory.locked():
        pass
    assert not (directory.path / "locked.json").exists()


def test_a_changed_notebook_is_refused(directory: BatchDirectory, jobs: FakeJobs) -> None:
    directory.notebook.write_text("{}")
    with pytest.raises(BatchError, match="was changed"):
        resume(directory, jobs)


def test_cancelling_asks_first_and_returns_with_proof(directory: BatchDirectory, jobs: FakeJobs) -> None:
    says(directory, 0, State.DONE)
    says(directory, 1, State.RUNNING)
    seen = []

    def worker(rows: list[Any]) -> None:
        seen.append([row.state for row in rows])
        if directory.set(1, 3).asked_to_stop() is State.CANCELLED:
            says(directory, 1, State.CANCELLED)

    assert cancel(directory, jobs, worker) == [1, 2]
    assert jobs.ends and seen[0] == [State.DONE, State.RUNNING, State.QUEUED]
    assert states(directory, jobs) == [State.DONE, State.CANCELLED, State.CANCELLED]
    assert directory.set(0, 3).asked_to_stop() is None
    assert cancel(directory, jobs) == []


def test_a_set_s_last_submission_is_the_last_that_was_made(directory: BatchDirectory, jobs: FakeJobs) -> None:
    first = directory.read().submissions[0]
    says(directory, 0, State.FAILED)
    second, _ = resume(directory, jobs)
    batch = directory.read().with_submission(first.model_copy(update={"cancelled": True}))
    assert batch.last_submission(0) == second
    assert batch.last_submission(1) == first.model_copy(update={"cancelled": True})


def test_what_does_not_go_is_said(directory: BatchDirectory, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.0)
    jobs.at_end = lambda: setattr(jobs, "living", True)
    with pytest.raises(BatchError, match="not every job|Not every job"):
        cancel(directory, jobs)


def test_a_scheduler_is_asked_rarely(directory: BatchDirectory, jobs: FakeJobs) -> None:
    now = [0.0]
    overview = Overview(directory, jobs, clock=lambda: now[0])
    for now[0] in (0.0, 5.0, 14.0, 15.0, 16.0):
        overview.rows()
    assert jobs.asked == 2


def test_metrics_come_from_where_the_notebook_writes(directory: BatchDirectory, jobs: FakeJobs) -> None:
    for number in range(3):
        says(directory, number, State.DONE)
    (directory.path / "000" / "results").mkdir()
    (directory.path / "000" / "results" / "metrics.json").write_text(json.dumps({"loss": 1.5}))
    (directory.path / "001" / "metrics.json").write_text("[")
    assert [row.metrics for row in Overview(directory, jobs).rows()] == [{"loss": 1.5}, None, None]


@pytest.mark.parametrize("content", ["", "{}", "[1]", "\udcff", '{"nbformat": 4}'])
def test_what_is_no_notebook(tmp_path: Path, content: str) -> None:
    (tmp_path / "n.ipynb").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BatchError, match="n.ipynb is no notebook"):
        read_notebook(tmp_path / "n.ipynb")
    with pytest.raises(BatchError, match="There is no notebook"):
        read_notebook(tmp_path / "other.ipynb")
