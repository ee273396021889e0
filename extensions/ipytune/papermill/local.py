"""papermill's engine `resumable`: a kernel here, and a run that can be gone on with after whatever ended it.

`ipytune run` uses it, and so does every batch job. On SIGTERM (a scheduler's warning before the walltime is over) the
output is saved with a mark and the exit status is 143. The kernel and all that it started end with the run.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from papermill.log import logger

from ipytune.papermill.cells import Cells, CellsEngine, Output, Terminated


class ResumableEngine(CellsEngine):
    """papermill's own way to run cells, on a kernel of this machine."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Output,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        cells: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("input_path", None)
        client = Cells(
            nb_man,
            **(cells or {}),
            timeout=execution_timeout,
            startup_timeout=start_timeout,
            kernel_name=kernel_name,
            log=logger,
            log_output=log_output,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
            **kwargs,
        )
        if nb_man.nb.metadata.get("kernelspec", {}).get("language", "python") == "python":
            client.extra_arguments = ["--log-level=ERROR"]  # else each run begins with a warning about its sockets
        manager = client.create_kernel_manager()
        client.owns_km = True
        with _ended_by_signal(), _group_ended(manager):
            client.execute()


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """SIGTERM raises Terminated here, once; outside of the main thread it stays whoever's it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # the end is on its way; a second one must not cut it short
        raise Terminated(number)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _group_ended(manager: Any) -> Iterator[None]:
    """What the kernel started goes with it: a server, a data loader's workers."""
    groups: list[int] = []
    start = manager.start_kernel

    async def start_kernel(*args: Any, **kwargs: Any) -> Any:
        result = await start(*args, **kwargs)
        group = getattr(manager.provisioner, "pgid", None)
        if group and group != os.getpgrp():
            groups.append(group)
        return result

    manager.start_kernel = start_kernel
    try:
        yield
    finally:
        for group in groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
