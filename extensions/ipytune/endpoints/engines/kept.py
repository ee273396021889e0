"""A process that a keeper looks after (keeper.py), as its caller sees it: started, asked, and ended for good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ipytune.endpoints.engines.log import last_lines

GRACE = 8.0  # seconds that a command gets between being asked to end and being ended
_MARGIN = 7.0
_TAIL_BYTES = 128 * 1024


class Kept:
    """One command and all that it starts. Nothing of it outlives this process."""

    def __init__(self, keeper: subprocess.Popen[bytes], log: Path) -> None:
        self._keeper = keeper
        self._log = log
        self._lock = threading.Lock()
        self._stopped = False

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
        key_variable: str | None = None,
        name: str = "engine",
    ) -> Kept:
        """Start `command` in `directory`, which holds its key, and is removed should this process die.

        key_variable: the variable of the command through which it gets the key in DIRECTORY/key; it is in no argument
        and in no file but that one.   name: of the log and of the keeper's file in the directory.
        """
        file, log = directory / f"{name}.json", directory / f"{name}.log"
        spec = {
            "command": list(command),
            "environment": dict(environment or {}),
            "without": list(without),
            "key_variable": key_variable,
            "key_file": str(directory / "key"),
            "directory": str(directory),
            "parent": os.getpid(),
            "remove": [str(directory)],
            "grace": GRACE,
        }
        file.write_text(json.dumps(spec), encoding="utf-8")
        with log.open("wb") as written:
            keeper = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__).with_name("keeper.py")), str(file)],
                stdin=subprocess.PIPE,  # held open as long as we live; its end tells that we are gone
                stdout=written,
                stderr=subprocess.STDOUT,
                cwd=tempfile.gettempdir(),
                start_new_session=True,  # an interrupt of the kernel is for the cell, not for the server
            )
        return cls(keeper, log)

    @property
    def pid(self) -> int:
        """Of the keeper; the command and its own are its descendants."""
        return self._keeper.pid

    @property
    def code(self) -> int | None:
        """The command's exit code, negative for a signal; None while it runs."""
        code = self._keeper.poll()
        return 128 - code if code is not None and code > 128 else code

    @property
    def running(self) -> bool:
        return self._keeper.poll() is None

    def wait(self) -> int:
        """Block until it ends; its exit code."""
        self._keeper.wait()
        code = self.code
        return code if code is not None else 0

    def log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def log_text(self, start: int = 0) -> str:
        """What was written from byte `start` on, of that the last part."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(start, self.log_size() - _TAIL_BYTES))
                return file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""

    def tail(self, lines: int = 30) -> str:
        return last_lines(self.log_text(), lines)

    def stop(self) -> None:
        """End the command and all that it has started. Returns when they are gone; harmless when they are already."""
        with self._lock:
            if self._keeper.poll() is None:
                self._keeper.terminate()
                try:
                    self._keeper.wait(GRACE + _MARGIN)
                except subprocess.TimeoutExpired:
                    self._keeper.kill()
                    self._keeper.wait()
            if self._keeper.returncode < 0 and not self._stopped:
                # The keeper itself was killed; its group is what we still know of the command's processes.
                try:
                    os.killpg(self._keeper.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass
            self._stopped = True
            if self._keeper.stdin is not None:
                self._keeper.stdin.close()
