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
from collections.abc import Sequence
from functools import lru_cache

from ipytune.runs.directory import RunDirectory, replace_text
from ipytune.runs.launch import slurm_answers, slurm_script
from ipytune.runs.launch.base import (
    Handle,
    InSlurm,
    LaunchError,
    launch_folder,
    write_launched,
)
from ipytune.runs.launch.environment import for_a_job
from ipytune.runs.launch.scheduled import JobHandle
from ipytune.runs.launch.settings import SlurmSettings
from ipytune.runs.launch.slurm_answers import SILENT, JobState

COMMAND_SECONDS = 20.0


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


class SlurmHandle(JobHandle[JobState]):
    ending_seconds = 60.0  # Slurm's KillWait is 30 s by default
    not_gone = "was cancelled, and is not gone yet. Look with squeue."

    def __init__(self, directory: RunDirectory, launched: InSlurm) -> None:
        super().__init__(directory, JobState(SILENT))
        self._job = launched.job
        self._cluster = launched.cluster

    def ending(self) -> str:
        return self._last.ending()

    def withdraw(self) -> None:
        run(["scancel", "--state=PENDING", self._job])  # Slurm decides and cancels in one go: no race with its start

    def describe(self) -> str:
        where = f" on {self._cluster}" if self._cluster else ""
        return f"{self._name}{where}" + (f" ({self._last.words()})" if self.alive() else "")

    @property
    def _name(self) -> str:
        return f"Slurm job {self._job}"

    def _end(self) -> None:
        code, output, error = run(["scancel", self._job])
        if code != 0 and not self._gone():
            raise LaunchError(f"{self._name} could not be cancelled: {_told(output, error)}. Try again later.")

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
