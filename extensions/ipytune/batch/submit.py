"""Makes a batch and has it run, goes on with what is unfinished, cancels it.

Promises
- Nothing is submitted before every set was checked against the notebook.
- A submission is written down before it is made, and once more with what was answered: whoever dies in between, the
  batch can be read, resumed and cancelled.
- Going on runs what failed, was cancelled, lost or never begun, each after its last good cell. What is done stays; what
  may still run is left alone.
- Cancelling returns once every job is proved gone.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ipytune.batch import sets
from ipytune.batch.directory import Batch, BatchDirectory, BatchError, State, Submission, make
from ipytune.batch.jobs import Jobs
from ipytune.batch.overview import Overview, Row, jobs_of
from ipytune.batch.parameters import declared
from ipytune.runs.launch.base import LaunchError

END_SECONDS = 180.0  # Kubernetes leaves a pod two minutes
COURTESY_SECONDS = 20.0  # in which workers end by themselves, with their outputs saved
AGAIN_SECONDS = 15.0  # between two requests to end what does not
POLL_SECONDS = 1.0


def read_notebook(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Its bytes, and the parameters that it declares. Raises BatchError, or ParameterError for a cell not in Python."""
    import nbformat  # here: `ipytune --help` answers at once

    try:
        content = path.read_bytes()
        notebook = nbformat.reads(content.decode("utf-8"), as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError as error:
        raise BatchError(f"There is no notebook {path}.") from error
    except (OSError, ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
        why = str(error).strip().splitlines()
        raise BatchError(f"{path} is no notebook: {why[0] if why else type(error).__name__}") from error
    return content, declared(notebook)


def submit(
    directory: BatchDirectory, batch: Batch, notebook: bytes, names: Collection[str], jobs: Jobs | None = None
) -> Submission:
    """A new batch, submitted. batch: without submissions. names: of the notebook's parameters.

    Raises BatchError or LaunchError, leaving nothing behind.
    """
    jobs = jobs or jobs_of(directory, batch)
    jobs.check()
    make(directory, batch, notebook, run_with(directory, batch, names))
    try:
        with directory.locked():
            return _start(directory, jobs, range(len(batch.sets)))
    except LaunchError:
        shutil.rmtree(directory.path)  # only what was written here just now
        raise


def new_batch(path: Path, content: bytes, **more: Any) -> Batch:
    return Batch(notebook=str(path.absolute()), sha256=hashlib.sha256(content).hexdigest(), **more)


def run_with(directory: BatchDirectory, batch: Batch, names: Collection[str]) -> list[dict[str, Any]]:
    """Each set with a folder of its own for its results, if the notebook has a parameter for it."""
    if sets.OUT_DIR not in names:
        return [dict(given) for given in batch.sets]
    count = len(batch.sets)
    folders = [str(directory.set(number, count).results) for number in range(count)]
    return [{sets.OUT_DIR: folder, **given} for folder, given in zip(folders, batch.sets, strict=True)]


def resume(directory: BatchDirectory, jobs: Jobs | None = None) -> tuple[Submission | None, list[Row]]:
    """Submits what is unfinished; None when there is nothing. Also returns how each set stood before."""
    with directory.locked():
        batch = directory.read()
        jobs = jobs or jobs_of(directory, batch)
        jobs.check()
        rows = Overview(directory, jobs).rows()
        unfinished = [row.number for row in rows if row.state.final and row.state is not State.DONE]
        return (_start(directory, jobs, unfinished) if unfinished else None), rows


def _start(directory: BatchDirectory, jobs: Jobs, numbers: Sequence[int]) -> Submission:
    batch = directory.read()
    for number in numbers:
        directory.set(number, len(batch.sets)).stop.unlink(missing_ok=True)  # of an earlier submission
    submission = jobs.plan(Submission(sets=tuple(numbers)))
    directory.write(batch.with_submission(submission))
    try:
        submission = jobs.start(submission)
    except LaunchError:
        directory.write(batch)
        raise
    directory.write(batch.with_submission(submission))
    return submission


def cancel(
    directory: BatchDirectory, jobs: Jobs | None = None, on_rows: Callable[[list[Row]], None] | None = None
) -> list[int]:
    """Ends every set that is not finished, and returns which, once they are proved gone.

    They are asked first, so that each output is saved; then their jobs are ended. Raises BatchError when one is not
    gone in time, LaunchError when a scheduler refuses.
    """
    with directory.locked():
        batch = directory.read()
        jobs = jobs or jobs_of(directory, batch)
        overview = Overview(directory, jobs)
        living = [row.number for row in overview.rows() if not row.state.final]
        for number in living:
            directory.set(number, len(batch.sets)).ask_to_stop(State.CANCELLED)
        theirs = [one for one in batch.submissions if any(batch.last_submission(number) == one for number in living)]
        for submission in theirs:
            batch = batch.with_submission(submission.model_copy(update={"cancelled": True}))
        directory.write(batch)
        now = time.monotonic()
        end_at, deadline = now + COURTESY_SECONDS, now + END_SECONDS
        while True:
            rows, now = overview.rows(interval=2.0), time.monotonic()
            if on_rows is not None:
                on_rows(rows)
            if now > end_at or not any(row.state is State.RUNNING for row in rows):
                for submission in theirs:
                    jobs.end(submission)
                end_at = now + AGAIN_SECONDS
            if all(row.state.final for row in rows) and all(_gone(jobs, submission) for submission in theirs):
                return living
            if now > deadline:
                raise BatchError("Not every job is gone yet. Look at them, and cancel again.")
            time.sleep(POLL_SECONDS)


def _gone(jobs: Jobs, submission: Submission) -> bool:
    """Whether none of its jobs lives, whatever was said by their workers."""
    evidence = jobs.ask(submission)
    return not any(evidence(number, None).alive for number in submission.sets)
