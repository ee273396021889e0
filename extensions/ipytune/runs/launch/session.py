"""This session runs it: one process, or torchrun with several on its GPUs or cores.

The process leads a session of its own, so a restart of the kernel, a reload of the page or a restart of the hub does
not end it. It ends with the user's session.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

from ipytune import heap, openmp
from ipytune.runs.directory import RunDirectory
from ipytune.runs.launch import commands
from ipytune.runs.launch.base import Handle, LaunchError, ask_to_stop, write_launched
from ipytune.runs.launch.pids import alive, identify
from ipytune.runs.launch.ranks import without_ranks

STARTING_SECONDS = 30.0  # from the directory's creation to the process's record; a fork takes milliseconds
_TERM_SECONDS = 10.0  # between SIGTERM and SIGKILL


class Session:
    """Launcher: a process of this session. processes: of them on this machine (DDP); 1 needs no torchrun."""

    def __init__(self, processes: int = 1) -> None:
        if processes < 1:
            raise ValueError(f"processes is {processes}: at least 1 is needed, and no more than GPUs (or cores) help.")
        self.processes = processes

    def start(self, directory: RunDirectory) -> Handle:
        write_launched(directory, None)
        environment = {**commands.TORCHRUN_ENVIRONMENT, **without_ranks(os.environ), "PYTHONUNBUFFERED": "1"}
        openmp.spin_briefly(environment)
        heap.use_large_pages(environment)
        try:
            with directory.log.open("ab") as log:
                child = subprocess.Popen(
                    commands.trainer(sys.executable, str(directory.path), self.processes),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=environment,
                )
        except OSError as error:
            raise LaunchError(
                f"The training process could not be started: {error}. Check disk space and limits."
            ) from error
        directory.write_process(identify(child.pid))
        return ProcessHandle(directory, child)


class ProcessHandle:
    """A trainer of this machine, or of one that cannot be asked from here. child: only in the process that began it."""

    def __init__(self, directory: RunDirectory, child: subprocess.Popen[bytes] | None = None) -> None:
        self._directory = directory
        self._child = child

    def alive(self) -> bool:
        if self._child is not None:  # the parent knows best, and reaps it by asking
            return self._child.poll() is None
        process = self._directory.read_process()
        if process is None:
            age = time.time() - self._directory.read_status().updated_at.timestamp()
            return age <= STARTING_SECONDS
        return alive(process)

    def silent(self) -> bool:
        process = self._directory.read_process()
        return self._child is None and process is not None and process.host != socket.gethostname()

    def ending(self) -> str:
        code = self._child.poll() if self._child is not None else None
        if code is None:
            return "is gone"
        if code >= 0:
            return f"exited with code {code}"
        how = f"was killed by {signal.Signals(-code).name}"
        return how + (
            " (most often: out of memory; lower row_tokens or ask for more)" if -code == signal.SIGKILL else ""
        )

    def withdraw(self) -> None:
        pass  # there is no queue

    def stop(self, grace: float) -> None:
        if ask_to_stop(self._directory, lambda: not self.alive(), grace):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            deadline = time.monotonic() + _TERM_SECONDS
            while self.alive() and time.monotonic() < deadline:
                time.sleep(0.05)
            if not self.alive():
                return

    def describe(self) -> str:
        process = self._directory.read_process()
        return f"process {process.pid} on {process.host}" if process else "a process that has not begun"

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None:  # torchrun, where there is one, passes SIGTERM on, and ends with its processes
            self._child.send_signal(number)
            return
        process = self._directory.read_process()
        if process is None or self.silent():
            raise LaunchError(
                f"The run in {self._directory.path} is {self.describe()}, which cannot be ended from here. It has been "
                f"asked to stop; end it there."
            )
        if alive(process):
            os.kill(process.pid, number)
