"""Evaluate endpoints and wait for the result: works in a cell, in a script and headless."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ipytune.endpoints.client import Timeouts
from ipytune.endpoints.records import Endpoint
from ipytune.evaluate.job import GRACE, Job
from ipytune.evaluate.plan import plan
from ipytune.evaluate.progress import Progress
from ipytune.evaluate.result import Evaluation
from ipytune.evaluate.scorers import Given

_LOOK = 0.25  # seconds between reports of progress


def evaluate(
    data: Any,
    endpoints: Endpoint | Sequence[Endpoint],
    scorers: Given | Sequence[Given] | None = None,
    *,
    concurrency: int = 16,
    limit: int | None = None,
    directory: Path | str | None = None,
    cache: Path | str | None = None,
    max_tokens: int | None = 512,
    temperature: float | None = 0.0,
    system: str | None = None,
    repeats: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
    timeouts: Timeouts | None = None,
    **options: Any,
) -> Evaluation:
    """Ask every endpoint every question, score the answers, and compare the endpoints with the first of them.

    data: what training reads, or rows with `prompt` and `expected` (`ipytune.evaluate.questions`).
    scorers: words ("exact", "regex:^#SBATCH"; `scorers.named`), functions of (given, expected), or scorers; exact match
    by default.   concurrency: requests under way to each endpoint.   limit: a sample of so many questions.
    directory: where all is kept, evaluations/NAME-OF-THE-DATA by default; calling again with the same asks only what is
    missing, and new endpoints, scorers or repeats only what is new.   cache: a directory of answers that several
    evaluations share; not used for one sampled answer a question.   max_tokens, temperature, options: of every request;
    None leaves one to the server.   repeats: answers to each question, for sampled ones.
    on_progress: called about four times a second, in this thread.

    An interrupt stops it: answers being written get some seconds, all that came is kept, KeyboardInterrupt goes on.
    Raises DatasetError and ValueError before anything is asked; one endpoint's failure is in the result.
    """
    job = Job(
        plan(
            data,
            endpoints,
            scorers,
            concurrency=concurrency,
            limit=limit,
            directory=directory,
            cache=cache,
            max_tokens=max_tokens,
            temperature=temperature,
            system=system,
            repeats=repeats,
            **options,
        ),
        timeouts,
    )
    return follow(job, on_progress)


def follow(job: Job, on_progress: Callable[[Progress], None] | None = None) -> Evaluation:
    """Wait for a job and report its progress. The first interrupt stops it gently, a second at once."""
    try:
        while not job.wait(_LOOK):
            if on_progress is not None:
                on_progress(job.progress())
    except KeyboardInterrupt:
        job.stop(GRACE)
        try:
            while not job.wait(_LOOK):
                if on_progress is not None:
                    on_progress(job.progress())
        except KeyboardInterrupt:
            job.stop(0)
            job.wait(GRACE)
        raise
    except BaseException:
        job.stop(0)
        raise
    if on_progress is not None:
        on_progress(job.progress())
    return job.evaluation()
