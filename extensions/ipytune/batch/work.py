"""Inside a job: `python -m ipytune.batch.work BATCH --submission MARK (--set N | --worker K [--seconds S])`.

- Runs one set, or one after another those of the submission that no other worker has claimed.
- Each is an `ipytune run` of its own, which goes on after the last good cell when an earlier output is there.
- Says in status.json how it goes. When the set shall stop (its `stop` file, a signal, `--seconds` over) the notebook is
  ended in time to keep what it has, and only then by force.

Exit status: 0 when all that it ran is done, else 1; 2 for wrong arguments. No torch import.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from types import FrameType

from ipytune.batch import notebooks
from ipytune.batch.directory import Batch, BatchDirectory, BatchError, SetDirectory, SetStatus, State, Submission
from ipytune.runs.launch.base import InKubernetes
from ipytune.runs.launch.job import this_job
from ipytune.runs.launch.pids import identify
from ipytune.runs.launch.settings import NOTICE_SECONDS

POLL_SECONDS = 0.25
BEAT_SECONDS = 30.0
# From the request to the force. Slurm kills 30 s after a cancellation, and NOTICE_SECONDS after the notice.
GRACE_SECONDS = {State.OUT_OF_TIME: NOTICE_SECONDS - 30.0, State.CANCELLED: 25.0}

_TERMINATED = {-signal.SIGTERM, 128 + signal.SIGTERM}


def command(directory: BatchDirectory, batch: Batch, one: SetDirectory) -> list[str]:
    """What runs a set: its parameters are in a file, so that no list of processes shows them."""
    run = [sys.executable, "-m", "ipytune", "run", str(directory.notebook), str(one.output)]
    run += ["-f", str(one.parameters), "--engine", "resumable", "--cwd", batch.cwd]
    return [*run, "--resume"] if one.output.exists() else run


def _environment(one: SetDirectory) -> dict[str, str]:
    """What a notebook's variables are saved to, so that they can be had again, must outlive the job: a pod's home does
    not."""
    kept = {"XDG_STATE_HOME": str(one.path / "state")} if isinstance(this_job(os.environ), InKubernetes) else {}
    return {"PYTHONUNBUFFERED": "1", **kept}


class Worker:
    """Runs sets of one submission."""

    def __init__(
        self, directory: BatchDirectory, submission: Submission, number: int | None = None, limit: float | None = None
    ) -> None:
        """number: of this worker among those that share the sets. limit: seconds that a set may take."""
        self._directory = directory
        self._batch = directory.read()
        self._submission = submission
        self._number = number
        self._limit = limit
        self._signalled = False
        self._beat_at = 0.0

    def signalled(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    def run(self, sets: Sequence[int]) -> bool:
        """Whether all that it ran are done."""
        if self._number is not None:
            self._directory.write_process(self._submission.mark, self._number, identify(os.getpid()))
        good = True
        for number in sets:
            one = self._directory.set(number, len(self._batch.sets))
            if self._signalled:
                break
            if one.claim(self._submission.mark):
                good = self._run_one(one) is State.DONE and good
        return good

    def _run_one(self, one: SetDirectory) -> State:
        status = SetStatus(
            submission=self._submission.mark,
            state=State.RUNNING,
            job=this_job(os.environ),
            process=identify(os.getpid()),
            started_at=datetime.now(timezone.utc),
        )
        if one.asked_to_stop() is not None:
            return self._ends(one, status, State.CANCELLED)
        one.write_status(status)
        with one.log.open("ab") as log:
            try:
                child = subprocess.Popen(
                    command(self._directory, self._batch, one),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, **_environment(one)},
                )
            except OSError as error:
                return self._ends(one, status, State.FAILED, f"could not be started: {error}")
        why = self._follow(one, child)
        if child.returncode == 0:
            return self._ends(one, status, State.DONE)
        if why is None and child.returncode in _TERMINATED:
            why = State.CANCELLED  # by who ends all of a job at once: then it may have been told before us
        if why is not None:
            return self._ends(one, status, why)
        return self._ends(one, status, State.FAILED, _error(one, child.returncode))

    def _follow(self, one: SetDirectory, child: subprocess.Popen[bytes]) -> State | None:
        """Waits for the end of it, and sees to it when it shall stop; why it should, else None."""
        began = time.monotonic()
        why, force_at = None, float("inf")
        while child.poll() is None:
            now = time.monotonic()
            self._beat(now)
            if why is None and (why := self._reason(one, now - began)) is not None:
                force_at = now + GRACE_SECONDS[why]
                child.terminate()
            if now > force_at:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        return why

    def _reason(self, one: SetDirectory, seconds: float) -> State | None:
        if (asked := one.asked_to_stop()) is not None:
            return asked
        if self._signalled:
            return State.CANCELLED
        return State.OUT_OF_TIME if self._limit is not None and seconds > self._limit else None

    def _beat(self, now: float) -> None:
        """A sign of life, for those who cannot ask after this process."""
        if self._number is not None and now - self._beat_at > BEAT_SECONDS:
            self._beat_at = now
            with contextlib.suppress(OSError):
                os.utime(self._directory.process_file(self._submission.mark, self._number))

    def _ends(self, one: SetDirectory, status: SetStatus, state: State, error: str | None = None) -> State:
        ended = {"state": state, "ended_at": datetime.now(timezone.utc), "error": error}
        one.write_status(status.model_copy(update=ended))
        return state


def _error(one: SetDirectory, code: int) -> str:
    """In one line: the notebook's exception, else the last that was printed."""
    advance = notebooks.read(one.output)
    if advance is not None and advance.error:
        return advance.error
    if code < 0:
        killed = f"was killed by {signal.Signals(-code).name}"
        return killed + (" (most often: out of memory)" if -code == signal.SIGKILL else "")
    return notebooks.one_line(one.log_tail()) or f"exited with code {code}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ipytune.batch.work", description="Run sets of a batch.")
    parser.add_argument("batch")
    parser.add_argument("--submission", required=True, metavar="MARK")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--set", type=int, metavar="N", help="this one")
    which.add_argument("--worker", type=int, metavar="K", help="those that nobody else has claimed")
    parser.add_argument("--seconds", type=float, metavar="S", help="that one set may take")
    given = parser.parse_args(arguments)
    directory = BatchDirectory(given.batch)
    try:
        batch = directory.read()
        submission = next((one for one in batch.submissions if one.mark == given.submission), None)
        if submission is None or (given.set is not None and given.set not in submission.sets):
            raise BatchError(f"{directory.path} has no such submission or set.")
        worker = Worker(directory, submission, given.worker, given.seconds)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, worker.signalled)
        return 0 if worker.run(submission.sets if given.set is None else [given.set]) else 1
    except (BatchError, OSError) as error:
        print(f"ipytune: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
