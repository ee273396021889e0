"""Whether a process still lives, told from its pid without mistaking another for it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ipytune.runs.directory import Process


def identify(pid: int) -> Process:
    return Process(pid=pid, host=socket.gethostname(), started=_started(pid))


def alive(process: Process) -> bool:
    """Whether the process still runs. One on another host is believed alive: its status says when it last spoke."""
    if process.host != socket.gethostname():
        return True
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    if process.started is None:
        return True
    return _started(process.pid) == process.started


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (proc(5), stat field 22); None for a zombie or where there
    is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]
