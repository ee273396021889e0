"""Scheduler commands with a delay: a directory for PATH with a script in front of each, which sleeps, then runs it.

The delay is read from a file at each call, so it can change while a hub runs. Each call leaves its name in a log.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sacct", "sinfo")

_SCRIPT = """#!/bin/sh
echo {name} >> {calls}
read delay < {delay}
[ "$delay" = 0 ] || sleep "$delay"
exec {real} "$@"
"""


class SlowCommands:
    """`path` comes first in the PATH of a hub."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "bin"
        self.path.mkdir(parents=True, exist_ok=True)
        self._delay, self._calls = directory / "delay", directory / "calls"
        self.delay = 0.0
        self.forget_calls()
        for name in COMMANDS:
            real = shutil.which(name)
            if real is None:
                raise FileNotFoundError(f"{name} is not installed")
            script = self.path / name
            script.write_text(_SCRIPT.format(name=name, calls=self._calls, delay=self._delay, real=real))
            script.chmod(0o755)

    @property
    def delay(self) -> float:
        """Seconds added to each command."""
        return float(self._delay.read_text())

    @delay.setter
    def delay(self, seconds: float) -> None:
        new = self._delay.with_suffix(".new")
        new.write_text(f"{seconds:g}\n")
        new.replace(self._delay)

    @property
    def calls(self) -> dict[str, int]:
        """How often each command was called since `forget_calls`."""
        return dict(Counter(self._calls.read_text().split()))

    def forget_calls(self) -> None:
        self._calls.write_text("")
