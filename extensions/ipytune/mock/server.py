"""A mock server, started and stopped from Python: in a process of its own, so that it does not share a core's time with
the client that is measured, or in a thread, where its answers can be a Python function.

However the caller ends, the processes end too: they hold the other end of a pipe from here.
"""

from __future__ import annotations

import asyncio
import atexit
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

from ipytune.mock.behaviour import Behaviour
from ipytune.mock.connection import listen
from ipytune.mock.records import Asked, Stats, Truth
from ipytune.mock.service import Service

if TYPE_CHECKING:
    from ipytune.endpoints.records import Endpoint

START_SECONDS = 60.0  # a Python that starts on a busy machine or a slow file system
_STOP_SECONDS = 5.0
_ANSWER_SECONDS = 60.0


class MockFailed(RuntimeError):
    """The mock server did not start, or does not answer what it is asked about itself."""


class MockServer:
    """A running mock. `url` is what an endpoint's base_url takes. Leaving the `with` block stops it."""

    def __init__(self, host: str, port: int, behaviour: Behaviour, running: _Running) -> None:
        self._host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # at which this machine reaches it
        self._running = running
        self._behaviour = behaviour
        self._directory: Path | None = None
        self._lock = threading.Lock()
        self.port = port
        atexit.register(self.stop)

    @property
    def root(self) -> str:
        """Without the /v1: where /health, /metrics and /mock/stats are."""
        return f"http://[{self._host}]:{self.port}" if ":" in self._host else f"http://{self._host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def pids(self) -> tuple[int, ...]:
        """Of its processes; empty when it runs in a thread of this one."""
        return self._running.pids

    @property
    def running(self) -> bool:
        return self._running.alive

    def endpoint(
        self,
        name: str = "mock",
        model: str | None = None,
        *,
        key_env: str | None = None,
        key_file: Path | None = None,
    ) -> Endpoint:
        """Its record; model: one of those that it lists (the first).

        A mock that wants a key and is given no place for it gets a file that only its user can read.
        """
        from ipytune.endpoints.records import Endpoint

        if self._behaviour.key is not None and key_env is None and key_file is None:
            key_file = self._key_file(self._behaviour.key)
        return Endpoint(
            name=name,
            base_url=self.url,
            model=model or self._behaviour.models[0],
            key_env=key_env,
            key_file=key_file,
        )

    def stats(self) -> Stats:
        return Stats(**self._ask("GET", "/mock/stats"))

    def truth(self) -> list[Truth]:
        """Of the latest requests (some thousands are kept), in the order of their arrival."""
        return [Truth.from_json(item) for item in self._ask("GET", "/mock/truth")["requests"]]

    def requests(self) -> list[Asked]:
        """The latest hundred requests, as they came."""
        return [Asked(**item) for item in self._ask("GET", "/mock/requests")["requests"]]

    def behave(self, **changes: Any) -> None:
        """Change some fields of the behaviour for the requests that follow. Raises ValueError."""
        checked = self._behaviour.changed(changes)
        if "key" in changes or callable(changes.get("text")):
            raise ValueError("key, text: a key, or a function as text, is given when the server is started.")
        self._ask("POST", "/mock/behaviour", changes)
        self._behaviour = checked

    def reset(self) -> None:
        """Forget counts, truth and requests."""
        self._ask("POST", "/mock/reset", {})

    def wait(self) -> int:
        """Block until it ends by itself; its exit code. For `ipytune mock`."""
        return self._running.wait()

    def stop(self) -> None:
        """Harmless when it has ended already."""
        atexit.unregister(self.stop)
        with self._lock:
            self._running.stop()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
                self._directory = None

    def __enter__(self) -> MockServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"MockServer({self.url}, {'running' if self.running else 'stopped'})"

    def _key_file(self, key: str) -> Path:
        with self._lock:
            if self._directory is None:
                self._directory = Path(tempfile.mkdtemp(prefix="ipytune-mock-"))
                file = self._directory / "key"
                file.touch(mode=0o600)
                file.write_text(key, encoding="ascii")
            return self._directory / "key"

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self._behaviour.key}"} if self._behaviour.key else {}
        connection = http.client.HTTPConnection(self._host, self.port, timeout=_ANSWER_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MockFailed(f"The mock server at {self.root} does not answer: {error}. Has it been stopped?") from None
        finally:
            connection.close()
        if response.status != 200:
            raise MockFailed(f"The mock server answered {response.status}: {answer['error']['message']}")
        return answer


def start_mock(
    behaviour: Behaviour | None = None,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    process: bool = True,
    processes: int = 1,
) -> MockServer:
    """Start a mock server and wait until it listens.

    port: 0 finds a free one.   process: in a process of its own; False: in a thread of this one.   processes: so many
    share the port, one core each; the kernel spreads connections, so a client needs many of them.
    Raises ValueError for what cannot be, MockFailed when it does not start (the port is taken).
    """
    behaviour = behaviour or Behaviour()
    if not 0 <= port <= 65535:
        raise ValueError(f"port: {port} is not allowed. It is a whole number from 0 to 65535.")
    if not 1 <= processes <= 256:
        raise ValueError(f"processes: {processes} is not allowed. It is a whole number from 1 to 256.")
    if process and callable(behaviour.text):
        raise ValueError("text: a function cannot be sent to another process. Start the mock with process=False.")
    if not process and processes > 1:
        raise ValueError("processes: a mock in a thread is one. Leave process=False out.")
    running: _Running = _Processes(behaviour, host, port, processes) if process else _Thread(behaviour, host, port)
    return MockServer(host, running.port, behaviour, running)


class _Running(Protocol):
    port: int

    @property
    def pids(self) -> tuple[int, ...]: ...
    @property
    def alive(self) -> bool: ...
    def wait(self) -> int: ...
    def stop(self) -> None: ...


class _Thread:
    """The server on an event loop in a thread of this process."""

    def __init__(self, behaviour: Behaviour, host: str, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ipytune-mock", daemon=True)
        self._thread.start()
        starting = asyncio.run_coroutine_threadsafe(self._start(behaviour, host, port), self._loop)
        try:
            self._service, self._server = starting.result(START_SECONDS)
        except OSError as error:
            self._end()
            raise MockFailed(_not_started(host, port, error.strerror or str(error))) from None
        self.port: int = self._server.sockets[0].getsockname()[1]

    @staticmethod
    async def _start(behaviour: Behaviour, host: str, port: int) -> tuple[Service, asyncio.Server]:
        service = Service(behaviour, asyncio.get_running_loop())
        return service, await listen(service, host, port)

    @property
    def pids(self) -> tuple[int, ...]:
        return ()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def wait(self) -> int:
        self._thread.join()
        return 0

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_STOP_SECONDS)
            self._end()

    async def _close(self) -> None:
        self._server.close()
        self._service.close()
        await asyncio.sleep(0)  # the closed connections are told so in the loop's next turn

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)
        self._loop.close()


class _Processes:
    """The server in processes of its own (process.py), which end when the pipe from here does."""

    def __init__(self, behaviour: Behaviour, host: str, port: int, count: int) -> None:
        self._children: list[subprocess.Popen[str]] = []
        # Closed by stop(), not at the end of a block.
        self._log = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._stopped = False
        deadline = time.monotonic() + START_SECONDS
        try:
            with ExitStack() as stack:
                if count > 1:
                    place = stack.enter_context(_reserved(host, port))
                    port = place.getsockname()[1]
                order = {
                    "behaviour": {**behaviour.as_json(), "key": behaviour.key},
                    "host": host,
                    "port": port,
                    "shared": count > 1,
                }
                for number in range(count):
                    self._children.append(self._launch({**order, "number": number}))
                ports = [self._first_line(child, deadline) for child in self._children]
            self.port: int = ports[0]["port"]
            if count > 1:
                for child in self._children:
                    self._tell(child, {"siblings": [line["own"] for line in ports]})
                for child in self._children:
                    self._first_line(child, deadline)
        except OSError as error:
            self.stop()
            raise MockFailed(_not_started(host, port, error.strerror or str(error))) from None
        except BaseException:
            self.stop()
            raise

    def _launch(self, order: Mapping[str, Any]) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", "ipytune.mock.process"],
            stdin=subprocess.PIPE,  # the order, which may hold a key; its end tells the child that we are gone
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # an interrupt of the kernel is for the cell, not for the server
        )
        self._tell(child, order)
        return child

    @staticmethod
    def _tell(child: subprocess.Popen[str], line: Mapping[str, Any]) -> None:
        assert child.stdin is not None
        child.stdin.write(json.dumps(line) + "\n")
        child.stdin.flush()

    def _first_line(self, child: subprocess.Popen[str], deadline: float) -> dict[str, Any]:
        assert child.stdout is not None
        line = _line_within(child.stdout, deadline - time.monotonic())
        if not line:
            self._log.seek(0)
            tail = "".join(self._log.readlines()[-15:]).strip()
            how = "did not say within a minute that it listens" if child.poll() is None else "ended as it started"
            raise MockFailed(f"The mock server {how}. {tail}")
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise MockFailed(told["error"])
        return told

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(child.pid for child in self._children)

    @property
    def alive(self) -> bool:
        return not self._stopped and all(child.poll() is None for child in self._children)

    def wait(self) -> int:
        return max((abs(child.wait()) for child in self._children), default=0)

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        for child in self._children:
            child.terminate()
        for child in self._children:
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        self._log.close()


def _reserved(host: str, port: int) -> socket.socket:
    """A socket bound to a port that several share, so that all bind the same; raises OSError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if port:
        with socket.socket(family) as alone:  # sharing would succeed beside somebody else's mock
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
    place = socket.socket(family)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind((host, port))
    except BaseException:
        place.close()
        raise
    return place


def _line_within(pipe: IO[str], seconds: float) -> str:
    """One line, or "" when none came in time or the other side has closed it."""
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.append(pipe.readline()), daemon=True)
    reader.start()
    reader.join(max(seconds, 0.0))
    return lines[0] if lines else ""


def _not_started(host: str, port: int, why: str) -> str:
    return f"The mock server cannot listen on {host}, port {port}: {why}. Choose another port, or 0 for a free one."
