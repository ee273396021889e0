"""A batch job runs it: submitted, asked after and cancelled with Slurm's own commands, as argument lists.

- The job script lies in the run directory (launch/job.sbatch), readable, and is what anybody could submit again.
- Two minutes before the walltime the script asks the run to stop: it checkpoints and says so. Nothing is requeued.
- squeue is asked when the run has been quiet for a while, sacct only when squeue knows the job no more. A Slurm that
  does not answer proves nothing: the run counts as alive.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import lru_cache

from ipytune.runs.directory import RunDirectory, replace_text
from ipytune.runs.launch import slurm_answers, slurm_script
from ipytune.runs.launch.base import (
    Handle,
    InSlurm,
    LaunchError,
    SignsOfLife,
    ask_to_stop,
    launch_folder,
    write_launched,
)
from ipytune.runs.launch.environment import for_a_job
from ipytune.runs.launch.settings import SlurmSettings
from ipytune.runs.launch.slurm_answers import SILENT, JobState

ASK_SECONDS = 15.0  # of silence, before a question and between two; the controller serves all users
SETTLE_SECONDS = 30.0  # for the last word of a job that ended well to arrive over a shared file system
COMMAND_SECONDS = 20.0
_ENDING_SECONDS = 60.0  # for Slurm to end a cancelled job: its KillWait is 30 s by default


class Sbatch:
    """Launcher: one batch job on one or several nodes. python: the interpreter there; None: this one's path."""

    def __init__(self, settings: SlurmSettings | None = None, python: str | None = None) -> None:
        self.settings = settings or SlurmSettings()
        self.python = python or sys.executable

    def start(self, directory: RunDirectory) -> Handle:
        run_dir = str(directory.path)
        try:
            command = slurm_script.submission(run_dir)
            script = slurm_script.launched(self.settings, self.python, run_dir)
        except ValueError as error:
            raise LaunchError(str(error)) from error
        write_launched(directory, None)
        launch_folder(directory).mkdir(parents=True, exist_ok=True)
        replace_text(launch_folder(directory) / "job.sbatch", script)
        code, output, said = run(command)
        if code != 0:
            raise LaunchError(f"Slurm did not take the job: {_told(output, said)}. Change what it names.")
        try:
            job = slurm_answers.job_id(output)
        except ValueError as unread:
            raise LaunchError(f"{unread}. Look for the job with `squeue --me`, and cancel it there.") from unread
        launched = InSlurm(job=job, cluster=local_cluster())
        write_launched(directory, launched)
        return SlurmHandle(directory, launched)


class SlurmHandle:
    def __init__(self, directory: RunDirectory, launched: InSlurm) -> None:
        self._directory = directory
        self._job = launched.job
        self._cluster = launched.cluster
        self._signs = SignsOfLife(directory, ASK_SECONDS)
        self._last = JobState(SILENT)
        self._asked_at = float("-inf")
        self._ended_at: float | None = None

    def alive(self) -> bool:
        if self._last.alive and self._signs.question_due():
            self._ask()
        if self._last.alive:
            return True
        return self._last.clean and time.monotonic() - (self._ended_at or 0.0) < SETTLE_SECONDS

    def silent(self) -> bool:
        return self.alive() and self._last.state == SILENT

    def ending(self) -> str:
        return self._last.ending()

    def withdraw(self) -> None:
        run(["scancel", "--state=PENDING", self._job])  # Slurm decides and cancels in one go: no race with its start

    def stop(self, grace: float) -> None:
        self.withdraw()
        if ask_to_stop(self._directory, self._gone, grace):
            return
        code, output, error = run(["scancel", self._job])
        if code != 0 and not self._gone():
            raise LaunchError(f"Slurm job {self._job} could not be cancelled: {_told(output, error)}. Try again later.")
        deadline = time.monotonic() + _ENDING_SECONDS
        while not self._gone():
            if time.monotonic() > deadline:
                raise LaunchError(f"Slurm job {self._job} was cancelled, and is not gone yet. Look with squeue.")
            time.sleep(1.0)

    def describe(self) -> str:
        where = f" on {self._cluster}" if self._cluster else ""
        return f"Slurm job {self._job}{where}" + (f" ({self._last.words()})" if self.alive() else "")

    def _gone(self) -> bool:
        """Whether it has ended, for one who waits for that: asked every two seconds."""
        if self._last.alive and time.monotonic() - self._asked_at > 2.0:
            self._ask()
        return not self._last.alive or self._directory.read_status().phase.final

    def _ask(self) -> None:
        self._last, self._asked_at = self._asked(), time.monotonic()
        if not self._last.alive and self._ended_at is None:
            self._ended_at = time.monotonic()

    def _asked(self) -> JobState:
        if self._cluster is not None and local_cluster() not in (None, self._cluster):
            return JobState(SILENT)  # here the number is another job's, or nobody's
        query = ["squeue", "--noheader", "--states=all", f"--jobs={self._job}"]
        found = slurm_answers.squeue(*run([*query, f"--format={slurm_answers.SQUEUE_FORMAT}"]))
        if found is not None:
            return found
        query = ["sacct", "--allocations", "--parsable2", "--noheader", f"--jobs={self._job}"]
        code, output, _ = run([*query, f"--format={slurm_answers.SACCT_FORMAT}"])
        return slurm_answers.sacct(code, output)


def run(command: Sequence[str]) -> tuple[int, str, str]:
    """Exit status, output and error of a Slurm command; a missing or a silent one is an error in words."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS,
            env=for_a_job(os.environ),
            check=False,
        )
    except FileNotFoundError:
        return 127, "", f"{command[0]} is not on this machine's PATH; start the run where Slurm's commands are"
    except subprocess.TimeoutExpired:
        return 124, "", f"{command[0]} did not answer within {COMMAND_SECONDS:g} s"
    return done.returncode, done.stdout, done.stderr


@lru_cache(maxsize=1)
def local_cluster() -> str | None:
    """Name of the cluster that Slurm's commands here speak to; None when they do not say."""
    code, output, _ = run(["scontrol", "show", "config"])
    return slurm_answers.cluster_name(output) if code == 0 else None


def _told(output: str, error: str) -> str:
    """What a command said, without the name that it puts before each line."""
    lines = [line.partition("error: ")[2] or line for line in (error or output).strip().splitlines()]
    return "; ".join(lines).rstrip(".") or "it gave no reason"
