"""The processor as a session has it. No torch: the measuring client and its reports read it too."""

from __future__ import annotations

import math
import os
import platform
import re
from pathlib import Path


def usable_cpus() -> int:
    """Cores that this process may use: its affinity (Slurm) and its cgroup's quota (Kubernetes), at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def bfloat16_pays(root: Path = Path("/")) -> bool:
    """Whether this processor multiplies bfloat16 much faster than float32, by the kernel's list of its features.

    With matrix units (AMX) three times as fast; by AVX512-BF16 twice as fast on AMD (EPYC of Zen 4: a training step of
    SmolLM2-135M 3.9 s instead of 7.8), on Intel slower, for which reason a feature's name alone decides nothing.
    """
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    features = frozenset() if flags is None else frozenset(flags[1].split())
    amd = re.search(r"^vendor_id\s*:\s*AuthenticAMD\s*$", text, re.MULTILINE) is not None
    return "amx_tile" in features or (amd and "avx512_bf16" in features)


def cpu_name() -> str:
    """Its model, or the architecture where the system does not name one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
