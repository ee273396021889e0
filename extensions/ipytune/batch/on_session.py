"""A batch in this session: as many processes as sets may run at once, each of which takes one set after the other.

They lead a session of their own: a restart of the kernel or a closed terminal does not end them. The end of the user's
session does; then the batch can be resumed.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime, timezone

from ipytune.batch.directory import Batch, BatchDirectory, SetStatus, Submission
from ipytune.batch.jobs import Ask
from ipytune.batch.scripts import WORKER
from ipytune.batch.states import Evidence
from ipytune.runs.directory import Process
from ipytune.runs.launch.base import LaunchError
from ipytune.runs.launch.pids import alive, identify

STARTING_SECONDS = 30.0  # from the submission to a worker's record; a fork takes milliseconds
QUIET_SECONDS = 600.0  # of a worker on a machine that cannot be asked; it gives a sign of life twice a minute


class SessionJobs:
    def __init__(self, directory: BatchDirectory, batch: Batch) -> None:
        self._directory = directory
        self._batch = batch

    def plan(self, submission: Submission) -> Submission:
        return submission.model_copy(update={"workers": min(self._batch.at_once or 1, len(submission.sets))})

    def preview(self, submission: Submission) -> str:
        return "".join(shlex.join(self._command(submission, number)) + " &\n" for number in range(submission.workers))

    def check(self) -> None:
        pass

    def start(self, submission: Submission) -> Submission:
        folder = self._directory.jobs(submission.mark)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(submission.workers):
            try:
                with (folder / f"{number}.log").open("ab") as log:
                    child = subprocess.Popen(
                        self._command(submission, number),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
            except OSError as error:
                self.end(submission)
                raise LaunchError(f"A worker could not be started: {error}. Check disk space and limits.") from error
            self._directory.write_process(submission.mark, number, identify(child.pid))
        return submission

    def ask(self, submission: Submission) -> Ask:
        living = [process for number, process in self._processes(submission) if self._lives(submission, number)]
        age = (datetime.now(timezone.utc) - submission.at).total_seconds()
        beginning = age < STARTING_SECONDS and len(self._processes(submission)) < submission.workers

        def evidence(number: int, said: SetStatus | None) -> Evidence:
            lives = said.process in living if said is not None else bool(living) or beginning
            waits = "waiting: for another set to end" if said is None and living else ""
            return Evidence(True, waits) if lives else Evidence(False, "ended without a last word")

        return evidence

    def end(self, submission: Submission) -> None:
        for _, process in self._processes(submission):
            if process.host == socket.gethostname() and alive(process):
                os.kill(process.pid, signal.SIGTERM)

    def describe(self, submission: Submission) -> str:
        count = submission.workers
        return f"{count} process{'es' if count != 1 else ''} of this session"

    def _command(self, submission: Submission, number: int) -> list[str]:
        options = [f"--submission={submission.mark}", f"--worker={number}"]
        return [sys.executable, "-m", WORKER, str(self._directory.path), *options]

    def _processes(self, submission: Submission) -> list[tuple[int, Process]]:
        found = (
            (number, self._directory.read_process(submission.mark, number)) for number in range(submission.workers)
        )
        return [(number, process) for number, process in found if process is not None]

    def _lives(self, submission: Submission, number: int) -> bool:
        process = self._directory.read_process(submission.mark, number)
        if process is None:
            return False
        if process.host == socket.gethostname():
            return alive(process)
        beat = self._directory.process_file(submission.mark, number).stat().st_mtime
        return time.time() - beat < QUIET_SECONDS
