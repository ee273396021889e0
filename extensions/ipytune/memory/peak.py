"""The most memory that this process has held so far."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_resident() -> int:
    """Bytes of this program: VmHWM starts anew with it, where getrusage still counts the process that started it."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
