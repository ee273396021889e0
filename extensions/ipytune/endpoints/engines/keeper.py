"""`python -I keeper.py FILE`: runs one command and never leaves any process of it behind. Standard library only.

It ends the command, and everything that the command has started, when
- its caller ends, however that ends: the caller holds the other end of our stdin (and, should a copy of that end live
  on in a process that the caller had forked, we are no longer the caller's child);
- it is told to (SIGTERM, SIGINT, SIGHUP), or the command ends by itself.
Processes that got away from their parent come to us (PR_SET_CHILD_SUBREAPER), so none is missed, also not one with a
session of its own. Should we be killed, the kernel kills the command (PR_SET_PDEATHSIG). Linux only; elsewhere the
command alone is ended.

FILE is JSON: command, environment (added), without (taken away), key_variable and key_file (the key goes from the file
into that variable of the command alone), parent (process id of the caller), remove (directories to be removed when the
caller is gone), grace (seconds between SIGTERM and SIGKILL). Exit code: the command's, 128 + N when signal N ended it.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOK = 1.0  # seconds between looks at who our parent is
_PAUSE = 0.05


def main(file: Path) -> int:
    spec = json.loads(file.read_text(encoding="utf-8"))
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, _noted)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = _start(spec)
    orphaned = _wait(child, wake_read, int(spec["parent"]))
    _end_all(child, float(spec["grace"]))
    if orphaned:
        for directory in spec["remove"]:
            shutil.rmtree(directory, ignore_errors=True)
    code = child.returncode
    return code if code >= 0 else 128 - code


def _start(spec: dict[str, Any]) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in spec["without"]}
    environment.update(spec["environment"])
    if spec["key_variable"] is not None:
        environment[spec["key_variable"]] = Path(spec["key_file"]).read_text(encoding="ascii").strip()
    return subprocess.Popen(
        spec["command"],
        stdin=subprocess.DEVNULL,
        env=environment,
        cwd=spec["directory"],
        preexec_fn=_die_with_us,  # noqa: PLW1509  (we have one thread)
    )


def _wait(child: subprocess.Popen[bytes], wake: int, parent: int) -> bool:
    """Until there is a reason to end; whether it is that our caller is gone."""
    stdin = sys.stdin.fileno()
    while True:
        ready, _, _ = select.select([stdin, wake], [], [], _LOOK)
        if os.getppid() != parent or (stdin in ready and not os.read(stdin, 4096)):
            return True
        if wake in ready:
            numbers = set(os.read(wake, 512))
            if numbers & {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
                return False
        _reap(child)
        if child.returncode is not None:
            return False


def _end_all(child: subprocess.Popen[bytes], grace: float) -> None:
    """SIGTERM to the command, which knows how to end its own; then to what is left; then SIGKILL."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    _pause_until(lambda: child.poll() is not None, grace)
    for pid in _left(child):
        _signal(pid, signal.SIGTERM)
    _pause_until(lambda: not _left(child), grace / 4)
    while left := _left(child):
        for pid in left:
            _signal(pid, signal.SIGKILL)
        time.sleep(_PAUSE)


def _pause_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(_PAUSE)


def _left(child: subprocess.Popen[bytes]) -> list[int]:
    """What is still alive of all that the command started, itself included."""
    _reap(child)
    return _descendants() or ([] if child.returncode is not None else [child.pid])


def _reap(child: subprocess.Popen[bytes]) -> None:
    """Collect what has ended, adopted processes too: a zombie would count as alive."""
    child.poll()
    for pid in _descendants():
        if pid != child.pid:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass  # not our child but a child's


def _descendants() -> list[int]:
    """Process ids of all that descend from us, from /proc."""
    parents: dict[int, list[int]] = {}
    try:
        entries = [entry for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208
    except OSError:
        return []
    for entry in entries:
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                # "PID (NAME) STATE PARENT ...": a name may hold anything, parentheses too
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # ended meanwhile
        parents.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    next_up = [os.getpid()]
    while next_up:
        below = parents.get(next_up.pop(), [])
        found += below
        next_up += below
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _die_with_us() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if _libc is not None:
        _libc.prctl(option, value, 0, 0, 0)


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up pipe has told already; without a handler Python would not write to it."""


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
