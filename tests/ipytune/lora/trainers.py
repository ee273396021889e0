"""Trainers without the seconds of importing torch, and ways to kill them.

`python -m tests.ipytune.lora.trainers` imports the trainer and forks one process for each order on its standard input,
a JSON object in a line; when that process has ended it answers with one. `Trainers` is the other end.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# What the trainer does to files, as Python's audit events name it: (event, which arguments are paths).
_TOUCHES = {"open": 1, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1}


@dataclass(frozen=True)
class Order:
    """Train in `run`, and send `signal` to the trainer: after some seconds, or at the touch of a file with that number.

    Touches of files in the run are counted from the first one whose path matches `counted_from`.
    """

    run: str
    signal: int = signal.SIGKILL
    at_touch: int | None = None
    counted_from: str = ""
    after_seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    code: int
    """Its exit status, or minus the signal that killed it."""
    touches: int
    seconds: float

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Trainers:
    """Starts trainers, one after the other."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def train(self, run: Path, **how: Any) -> Ended:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(asdict(Order(str(run), **how))) + "\n")
        self._server.stdin.flush()
        return Ended(**json.loads(self._server.stdout.readline()))

    def close(self) -> None:
        self._server.communicate(timeout=60)


def killed_at(call: Callable[[], object], folder: Path, at_touch: int) -> bool:
    """Makes the call in a forked process that is killed at that touch of a file in `folder`; whether it came to it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _count_touches(Order(str(folder), at_touch=at_touch))
            call()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def serve() -> None:
    import time

    import transformers.models.llama.modeling_llama  # noqa: F401 - what the first trainer would import

    import ipytune.lora.loop  # noqa: F401

    for line in sys.stdin:
        order = Order(**json.loads(line))
        reading, writing = os.pipe()
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _train(order, writing)
        os.close(writing)
        if order.after_seconds is not None and not _ends_within(pid, order.after_seconds):
            os.kill(pid, order.signal)
        status = os.waitpid(pid, 0)[1]
        with os.fdopen(reading) as counted:
            touches = int(counted.read() or 0)
        ended = Ended(os.waitstatus_to_exitcode(status), touches, time.monotonic() - started)
        print(json.dumps(asdict(ended)), flush=True)


def _ends_within(pid: int, seconds: float) -> bool:
    process = os.pidfd_open(pid)
    try:
        return bool(select.select([process], [], [], seconds)[0])
    finally:
        os.close(process)


def _train(order: Order, writing: int) -> None:
    """In the forked process; does not return."""
    code = 3
    try:
        from ipytune.lora import train

        log = os.open(Path(order.run) / "train.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        touches = _count_touches(order)
        code = train.main([order.run])
        os.write(writing, str(next(touches) - 1).encode())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _count_touches(order: Order) -> itertools.count[int]:
    touches = itertools.count(1)
    begin = re.compile(order.counted_from)
    begun = False

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal begun
        if event not in _TOUCHES:
            return
        paths = [os.fspath(path) for path in arguments[: _TOUCHES[event]] if isinstance(path, (str, os.PathLike))]
        # Names without a folder are those of shutil.rmtree, which goes by directory handles.
        if not any(path.startswith(order.run) or (event != "open" and not os.path.isabs(path)) for path in paths):  # noqa: PTH117
            return
        begun = begun or any(begin.search(path) for path in paths)
        if begun and next(touches) == order.at_touch:
            os.kill(os.getpid(), order.signal)

    sys.addaudithook(look)
    return touches


if __name__ == "__main__":
    serve()
