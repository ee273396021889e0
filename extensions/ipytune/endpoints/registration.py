"""Endpoints that this session's own processes serve: one record a server, which dies with its process.

A record names the process by pid and start time, so one that was killed leaves nothing that is believed: whoever reads
ignores and removes it. Records of other machines (homes are shared) cannot be judged from here and are left alone,
until they are older than any session. The folder must be the reader's own: a record says where prompts and keys go.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import secrets
import socket
import stat
import time
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ConfigDict, ValidationError

from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.private_file import write_private
from ipytune.endpoints.records import Endpoint
from ipytune.runs.directory import Process
from ipytune.runs.launch.pids import alive, identify

_OLD = 30 * 86_400.0  # seconds; no session lasts so long
_LARGEST = 64 * 1024


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    endpoint: Endpoint
    process: Process


class Registration:
    """A record in the folder, until `close()`, the end of the `with` block, or the end of the process."""

    def __init__(self, endpoint: Endpoint, path: Path) -> None:
        self.endpoint = endpoint
        self.path = path
        self._writer = os.getpid()
        atexit.register(self.close)

    def close(self) -> None:
        """Remove the record. Harmless when it is gone, and in a forked child, whose it is not."""
        atexit.unregister(self.close)
        if os.getpid() == self._writer:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Registration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def folder() -> Path:
    """Where the records are: Jupyter's runtime folder, else the login session's, else Jupyter's usual one."""
    session = os.environ.get("XDG_RUNTIME_DIR")  # batch jobs inherit the name of one that their node does not have
    if os.environ.get("JUPYTER_RUNTIME_DIR"):
        runtime = Path(os.environ["JUPYTER_RUNTIME_DIR"])
    elif session and Path(session).is_dir():
        runtime = Path(session)
    else:
        runtime = Path.home() / ".local" / "share" / "jupyter" / "runtime"
    return runtime / "ipytune-endpoints"


def register(endpoint: Endpoint, *, pid: int | None = None) -> Registration:
    """Put `endpoint` into the catalogue of this user's sessions on this machine for as long as a process lives.

    pid: the process that serves; this one by default. Raises BadRequest when the folder cannot be used.
    """
    place = folder()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", endpoint.name)[:40].strip(".-") or "endpoint"
    process = identify(os.getpid() if pid is None else pid)
    path = place / f"{name}-{process.pid}-{secrets.token_hex(3)}.json"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.chmod(0o700)
        write_private(path, _Record(endpoint=endpoint, process=process).model_dump_json(exclude_none=True))
    except OSError as error:
        raise BadRequest(
            f"The endpoint “{endpoint.name}” cannot be put into the catalogue.",
            f"{place}: {error.strerror}.",
            "Set JUPYTER_RUNTIME_DIR to a folder of your own. The endpoint itself works by its URL.",
        ) from None
    return Registration(endpoint, path)


def registered() -> tuple[list[Endpoint], list[str]]:
    """The endpoints of live processes, newest first, and what was wrong with other records. Removes dead ones."""
    place = folder()
    try:
        about = place.stat()
    except OSError:
        return [], []
    if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o022:
        return [], [f"{place} is not used: others can write there. Make it your own: chmod 700."]
    found: list[tuple[float, Endpoint]] = []
    problems: list[str] = []
    for path in sorted(place.glob("*.json")):
        try:
            written = path.stat().st_mtime
            if path.stat().st_size > _LARGEST:
                raise ValueError
            record = _Record.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            continue  # its process ended just now
        except (OSError, ValueError, ValidationError):
            problems.append(f"{path} is no record of an endpoint. Delete it.")
            continue
        if record.process.host != socket.gethostname():
            if time.time() - written > _OLD:
                _remove(path)
        elif alive(record.process):
            found.append((written, record.endpoint))
        else:
            _remove(path)
    found.sort(key=lambda pair: -pair[0])
    return [endpoint for _, endpoint in found], problems


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # a read-only home: it is ignored all the same
