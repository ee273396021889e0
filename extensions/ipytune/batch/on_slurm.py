"""A batch as one Slurm array: a task for each set, of which Slurm runs as many at once as it may.

- The script lies in the batch (jobs/MARK/array.sbatch), and is what was submitted.
- An array whose number was not written down, because the submitter died, is found by its comment.
- One squeue answers for all sets, and one sacct for those that the queue knows no more. A Slurm that does not answer
  proves nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from ipytune.batch import scripts
from ipytune.batch.directory import Batch, BatchDirectory, SetStatus, State, Submission
from ipytune.batch.jobs import Ask
from ipytune.batch.states import Evidence
from ipytune.runs.directory import replace_text
from ipytune.runs.launch import slurm, slurm_answers
from ipytune.runs.launch.base import InSlurm, LaunchError
from ipytune.runs.launch.settings import SlurmSettings
from ipytune.runs.launch.slurm_answers import FORGOTTEN, SILENT, JobState

ARRAY_FORMAT = "%K|%T|%r"
FOUND_FORMAT = "%F|%k"
SACCT_FORMAT = "JobID,State,ExitCode"
_ENDS = {
    "CANCELLED": State.CANCELLED,
    "PREEMPTED": State.CANCELLED,
    "REVOKED": State.CANCELLED,
    "TIMEOUT": State.OUT_OF_TIME,
    "DEADLINE": State.OUT_OF_TIME,
}
_NO_MEMORY = "ran out of memory (ask for more memory_per_node)"


class SlurmJobs:
    def __init__(self, directory: BatchDirectory, batch: Batch, python: str | None = None) -> None:
        self._directory = directory
        self._batch = batch
        self._path = str(directory.path)
        self._settings = batch.slurm or SlurmSettings()
        self._python = python or sys.executable

    def plan(self, submission: Submission) -> Submission:
        return submission

    def preview(self, submission: Submission) -> str:
        return scripts.array_script(self._settings, self._batch, submission, self._path, self._python)

    def check(self) -> None:
        try:
            self.preview(Submission(sets=(0,)))
        except ValueError as error:
            raise LaunchError(str(error)) from error

    def start(self, submission: Submission) -> Submission:
        folder = self._directory.jobs(submission.mark)
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(folder / "array.sbatch", self.preview(submission))
        code, output, error = slurm.run(scripts.sbatch(self._batch, submission, self._path))
        if code != 0:
            raise LaunchError(f"Slurm did not take the array: {_told(output, error)}. Change what it names.")
        try:
            job = slurm_answers.job_id(output)
        except ValueError as unread:
            raise LaunchError(f"{unread}. Look for the job with `squeue --me`, and cancel it there.") from unread
        return submission.model_copy(update={"slurm": InSlurm(job=job, cluster=slurm.local_cluster())})

    def ask(self, submission: Submission) -> Ask:
        known = self._states(submission)

        def evidence(number: int, said: SetStatus | None) -> Evidence:
            state = known if isinstance(known, JobState) else known.get(number, JobState(FORGOTTEN))
            return _evidence(state)

        return evidence

    def end(self, submission: Submission) -> None:
        job = submission.slurm or self._found(submission)
        if not isinstance(job, InSlurm):
            return
        if _elsewhere(job):
            raise LaunchError(f"Slurm job {job.job} is on {job.cluster}. Cancel it there.")
        code, output, error = slurm.run(["scancel", job.job])
        if code != 0 and "Invalid job id" not in error:
            raise LaunchError(f"Slurm job {job.job} could not be cancelled: {_told(output, error)}. Try again later.")

    def describe(self, submission: Submission) -> str:
        if submission.slurm is None:
            return "a Slurm array whose number is not known"
        where = f" on {submission.slurm.cluster}" if submission.slurm.cluster else ""
        return f"Slurm array {submission.slurm.job}{where}"

    def _states(self, submission: Submission) -> Mapping[int, JobState] | JobState:
        """By set; one state when it is the same for all."""
        job = submission.slurm or self._found(submission)
        if isinstance(job, JobState):
            return job
        if _elsewhere(job):
            return JobState(SILENT)
        query = ["squeue", "--noheader", "--states=all", "--array", f"--jobs={job.job}", f"--format={ARRAY_FORMAT}"]
        queued = read_squeue(*slurm.run(query))
        if queued is None or set(submission.sets) <= queued.keys():
            return JobState(SILENT) if queued is None else queued
        query = ["sacct", "--allocations", "--array", "--parsable2", "--noheader", f"--jobs={job.job}"]
        code, output, _ = slurm.run([*query, f"--format={SACCT_FORMAT}"])
        return {**read_sacct(code, output), **queued}

    def _found(self, submission: Submission) -> InSlurm | JobState:
        """The array by its comment, or what to believe without it."""
        code, output, _ = slurm.run(["squeue", "--me", "--noheader", "--states=all", f"--format={FOUND_FORMAT}"])
        if code != 0:
            return JobState(SILENT)
        job = find(output, submission.mark)
        return InSlurm(job=job, cluster=slurm.local_cluster()) if job else JobState(FORGOTTEN)


def find(output: str, mark: str) -> str | None:
    """The number of the array with this mark, from `squeue --me --noheader --format=FOUND_FORMAT`."""
    for line in output.splitlines():
        job, _, comment = line.strip().partition("|")
        if comment == scripts.comment(mark) and job.isdecimal():
            return job
    return None


def read_squeue(code: int, output: str, error: str) -> dict[int, JobState] | None:
    """By set, from `squeue --noheader --states=all --array --jobs=ID --format=ARRAY_FORMAT`; None: no answer."""
    if code != 0:
        return {} if "Invalid job id" in error else None
    found = {}
    for line in output.splitlines():
        number, state, reason = (*line.strip().split("|", 2), "", "")[:3]
        if number.isdecimal() and state:
            found[int(number)] = JobState(state, "" if reason == "None" else reason)
    return found


def read_sacct(code: int, output: str) -> dict[int, JobState]:
    """By set, from `sacct --allocations --array --parsable2 --noheader --format=SACCT_FORMAT --jobs=ID`. A cluster
    without accounting fails here; then nothing is known of what the queue has forgotten."""
    found = {}
    for line in output.splitlines() if code == 0 else ():
        job, _, rest = line.partition("|")
        task = re.fullmatch(r"\d+_(\d+)", job.strip())
        if task is not None:
            found[int(task[1])] = slurm_answers.sacct(0, rest)
    return found


def _evidence(state: JobState) -> Evidence:
    if state.alive:
        return Evidence(True, state.words() if state.waiting or state.state == SILENT else "")
    words = _NO_MEMORY if state.state == "OUT_OF_MEMORY" else state.ending()
    return Evidence(False, words, _ENDS.get(state.state, State.FAILED))


def _elsewhere(job: InSlurm) -> bool:
    """Whether Slurm's commands here speak to another cluster, where the number is another job's, or nobody's."""
    return job.cluster is not None and slurm.local_cluster() not in (None, job.cluster)


def _told(output: str, error: str) -> str:
    lines = [line.partition("error: ")[2] or line for line in (error or output).strip().splitlines()]
    return "; ".join(lines).rstrip(".") or "it gave no reason"
