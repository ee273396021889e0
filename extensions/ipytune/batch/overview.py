"""How every set of a batch stands: read from its files, and asked of its jobs where a set has said no last word.

A scheduler serves all users: it is asked at most once in `interval` seconds for each submission.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipytune.batch import notebooks
from ipytune.batch.directory import Batch, BatchDirectory, SetDirectory, State, Submission
from ipytune.batch.jobs import Ask, Jobs
from ipytune.batch.on_kubernetes import KubernetesJobs
from ipytune.batch.on_session import SessionJobs
from ipytune.batch.on_slurm import SlurmJobs
from ipytune.batch.sets import OUT_DIR
from ipytune.batch.states import judge, spoken

ASK_SECONDS = 15.0


@dataclass(frozen=True)
class Row:
    """One set. words: why it waits, or its error's one line. done, cells: of the notebook, while it runs."""

    number: int
    parameters: Mapping[str, Any]
    state: State
    words: str = ""
    seconds: float | None = None
    done: int = 0
    cells: int = 0
    metrics: Mapping[str, Any] | None = None


def jobs_of(directory: BatchDirectory, batch: Batch) -> Jobs:
    """Who runs a batch, as it says itself."""
    if batch.kubernetes is not None:
        return KubernetesJobs(directory, batch, batch.kubernetes)
    return SlurmJobs(directory, batch) if batch.on == "slurm" else SessionJobs(directory, batch)


class Overview:
    """The rows of a batch, as often as they are asked for."""

    def __init__(
        self, directory: BatchDirectory, jobs: Jobs | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._jobs = jobs
        self._clock = clock
        self._answers: dict[str, tuple[float, Ask]] = {}

    def rows(self, interval: float = ASK_SECONDS) -> list[Row]:
        """interval: of seconds, in which the answers of a scheduler are believed."""
        batch = self._directory.read()
        jobs = self._jobs or jobs_of(self._directory, batch)
        return [self._row(batch, jobs, number, one, interval) for number, one in enumerate(self._directory.sets(batch))]

    def _row(self, batch: Batch, jobs: Jobs, number: int, one: SetDirectory, interval: float) -> Row:
        submission = batch.last_submission(number)
        said = spoken(one.read_status(), submission)
        evidence = None
        if submission is not None and (said is None or not said.state.final):
            evidence = self._asked(jobs, submission, interval)(number, said)
            said = spoken(one.read_status(), submission)  # its last word may have come before the job's end was told
        judged = judge(said, submission, evidence)
        seconds = said.seconds if said is not None and (said.ended_at or not judged.state.final) else None
        advance = notebooks.read(one.output) if judged.state is State.RUNNING else None
        return Row(
            number=number,
            parameters=batch.sets[number],
            state=judged.state,
            words=judged.words,
            seconds=seconds,
            done=advance.done if advance else 0,
            cells=advance.cells if advance else 0,
            metrics=metrics(batch, number, one) if judged.state is State.DONE else None,
        )

    def _asked(self, jobs: Jobs, submission: Submission, interval: float) -> Ask:
        known = self._answers.get(submission.mark)
        if known is None or self._clock() - known[0] >= interval:
            known = self._clock(), jobs.ask(submission)
            self._answers[submission.mark] = known
        return known[1]


def metrics(batch: Batch, number: int, one: SetDirectory) -> dict[str, Any] | None:
    """What a set wrote into its OUT_DIR, or into its folder; None when it wrote none."""
    given = batch.sets[number].get(OUT_DIR)
    places = [Path(batch.cwd) / given] if isinstance(given, str) else [one.results, one.path]
    for place in places:
        try:
            found = json.loads((place / "metrics.json").read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return None
