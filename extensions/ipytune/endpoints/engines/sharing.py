"""The door of a server for jupyter-server-proxy (gate.py), started where there is a Jupyter server around us."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ipytune.endpoints.engines import jupyter
from ipytune.endpoints.engines.kept import Kept

_SECONDS = 60.0  # of a start on a busy file system
_PORT_FILE = "gate-port"


@dataclass(frozen=True)
class Sharing:
    """The running door. url: of the OpenAI API from elsewhere; its path alone when the public address is not known."""

    door: Kept
    port: int
    url: str

    def stop(self) -> None:
        self.door.stop()


def share(directory: Path, engine: str, say: Callable[[str], None]) -> Sharing | None:
    """Open the door to the engine at this root URL. None where there is no Jupyter server that could proxy to it.

    A door that does not open is said, and fails nothing: the session itself reaches the engine directly.
    """
    around = jupyter.around_us()
    if around is None:
        return None
    command = [sys.executable, "-m", "ipytune.endpoints.engines.gate", str(directory), engine, around.identity_url]
    file = directory / _PORT_FILE
    file.unlink(missing_ok=True)
    door = Kept.start(command, directory, name="gate")
    deadline = time.monotonic() + _SECONDS
    try:
        while not file.exists():
            if not door.running or time.monotonic() > deadline:
                door.stop()
                say(f"It cannot be reached through Jupyter: its door did not open. {door.tail(2)}")
                return None
            time.sleep(0.05)
    except BaseException:
        door.stop()
        raise
    port = int(file.read_text(encoding="ascii"))
    return Sharing(door, port, around.url(port) or around.path(port))
