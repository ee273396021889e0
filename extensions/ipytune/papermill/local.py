"""papermill's engine `resumable`: a kernel here, and a run that can be gone on with after whatever ended it.

`ipytune run` uses it, and so does every batch job. On SIGTERM (a scheduler's warning before the walltime is over) or
SIGHUP the output is saved with a mark, and the exit status is 143 or 129. The kernel and all that it started end
with the run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipytune.papermill.cells import Cells, CellsEngine, Output
from ipytune.papermill.signals import ended_by_signals


class ResumableEngine(CellsEngine):
    """papermill's own way to run cells, on a kernel of this machine."""

    @classmethod
    def run_cells(
        cls, output: Output, kernel_name: str, options: dict[str, Any], input_path: str | None = None, **keywords: Any
    ) -> None:
        client = Cells(output, kernel_name=kernel_name, **options, **keywords)
        if output.nb.metadata.get("kernelspec", {}).get("language", "python") == "python":
            client.extra_arguments = ["--log-level=ERROR"]  # else each run begins with a warning about its sockets
        manager = client.create_kernel_manager()
        client.owns_km = True
        with ended_by_signals(), _group_ended(manager):
            client.execute()


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
