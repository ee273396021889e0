"""The processor as a session has it. No torch: the measuring client and its reports read it too."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path


def usable_cpus() -> int:
    """Cores that this process may use: its affinity (Slurm) and its cgroup's quota (Kubernetes), at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def cpu_name() -> str:
    """Its model, or the architecture where the system does not name one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
