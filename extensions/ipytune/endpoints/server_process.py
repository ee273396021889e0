"""`python -m ipytune.endpoints.server_process DIRECTORY HOST PORT`: transformers' server, as a child that behaves.

What it adds to `transformers serve`:
- it ends when its parent does, however that ends: the parent holds the other end of stdin; then nobody else is left to
  remove DIRECTORY, so it does;
- every request but /health must carry the key in DIRECTORY/key: on a shared node anybody may reach 127.0.0.1;
- it binds its port itself and writes it to DIRECTORY/port, so a free port (0) is found without a race.
"""

from __future__ import annotations

import hmac
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, cast

from transformers.cli.serve import Serve

from ipytune.lora.hardware import choose_device, choose_dtype

_GRACE = 5.0  # seconds that an answer being written gets before the process ends all the same

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class RequireKey:
    """ASGI: 401 for every HTTP request without the key, except GET /health."""

    def __init__(self, app: App, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != "/health" and not self._allowed(scope):
            body = b'{"error": {"message": "This server wants its key: Authorization: Bearer ...", "code": 401}}'
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)


class ChildServe(Serve):
    """transformers' server with our socket and key; runs in the foreground until it is told to end."""

    def __init__(self, bound: socket.socket, key: str, **settings: Any) -> None:
        self._bound = bound
        self._key = key
        # The base class either serves at once, or hands over to start_server(), which is where we come in.
        super().__init__(non_blocking=True, **settings)

    def start_server(self) -> None:
        app = cast(App, self.server.config.app)
        self.server.config.app = RequireKey(app, self._key)
        self.server.run(sockets=[self._bound])


def main(directory: Path, host: str, port: int) -> None:
    threading.Thread(target=_end_with_parent, args=(directory,), name="parent", daemon=True).start()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    beside = directory / "port.new"
    beside.write_text(str(bound.getsockname()[1]), encoding="ascii")
    beside.rename(directory / "port")
    # Idle models stay: a second prompt after a coffee must not wait for the model again.
    # The weights' own type is slow where the processor does not compute in it (bfloat16 on most CPUs).
    dtype = str(choose_dtype("auto", choose_device("auto"))).removeprefix("torch.")
    ChildServe(bound, (directory / "key").read_text(encoding="ascii"), model_timeout=-1, dtype=dtype)
    os._exit(0)  # a generation still running in a thread must not hold the process


def _end_with_parent(directory: Path) -> None:
    sys.stdin.buffer.read()
    shutil.rmtree(directory, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
