"""The kernel of a session, for nbclient: what it takes for a local one runs over the session's API and websocket.

So outputs, display updates, widgets, errors and timeouts are nbclient's and papermill's own. Two of its habits need a
line that never drops anything: it waits four seconds for a cell's last output once the reply is there, and for ever for
a reply. So `Line` hands a reply on only after the kernel is idle, and finds replies that were lost.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx
from jupyter_client import AsyncKernelClient
from pydantic import SecretStr

from ipytune.papermill.errors import EngineError, HubSilent, SettingsError, StartFailed
from ipytune.papermill.hub import AWAY, PATIENCE, Token, said
from ipytune.papermill.line import KernelDied, Line
from ipytune.papermill.wire import Message


class Channel:
    """One of a kernel's channels. Filled by the line's thread, read by an event loop of another; nothing is lost when
    a reader is cancelled or its time runs out."""

    def __init__(self, name: str, send: Callable[[Message, str], None]) -> None:
        self._name, self._send = name, send
        self._messages: deque[Message] = deque()
        self._fault: Exception | None = None
        self._lock = threading.Lock()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def send(self, message: Message) -> None:
        self._send(message, self._name)

    def put(self, message: Message) -> None:
        with self._lock:
            self._messages.append(message)
        self._notify()

    def fail(self, error: Exception) -> None:
        """Raise `error` to readers once there is nothing more to read."""
        with self._lock:
            self._fault = self._fault or error
        self._notify()

    def is_alive(self) -> bool:
        return True

    async def msg_ready(self) -> bool:
        with self._lock:
            return bool(self._messages)

    async def get_msg(self, timeout: float | None = None) -> Message:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            with self._lock:
                if self._messages:
                    return self._messages.popleft()
                if self._fault is not None:
                    raise self._fault
                waiter: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, waiter))
            try:
                await asyncio.wait_for(waiter, None if deadline is None else max(0.0, deadline - loop.time()))
            except (TimeoutError, asyncio.TimeoutError):
                raise Empty from None

    def _notify(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for loop, waiter in waiters:
            try:
                loop.call_soon_threadsafe(_wake, waiter)
            except RuntimeError:
                pass  # that loop is closed, nobody waits there


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class SessionKernelClient(AsyncKernelClient):
    """jupyter_client's client, with channels over a websocket."""

    def __init__(self, kernel: SessionKernel, **options: Any) -> None:
        super().__init__(**options)
        self._kernel = kernel
        self._line: Line | None = None
        self.channels: dict[str, Channel] = {}

    def start_channels(self, *_: Any, **__: Any) -> None:
        line = Line(
            self._kernel.socket_url,
            self._kernel.token,
            self.session,
            deliver=self._deliver,
            look=self._kernel.look,
            over=self._kernel.over,
            say=self._kernel.say,
        )
        self.channels = {name: Channel(name, line.send) for name in ("shell", "iopub", "stdin", "control")}
        self._kernel.on_over = self.channels["shell"].fail
        self._line = line
        line.start()

    def stop_channels(self) -> None:
        if self._line is not None:
            self._line.close()

    def _deliver(self, message: Message) -> None:
        if (channel := self.channels.get(str(message.get("channel")))) is not None:
            channel.put(message)

    @property
    def channels_running(self) -> bool:
        return self._line is not None and self._line.is_alive()

    @property
    def shell_channel(self) -> Channel:
        return self.channels["shell"]

    @property
    def iopub_channel(self) -> Channel:
        return self.channels["iopub"]

    @property
    def stdin_channel(self) -> Channel:
        return self.channels["stdin"]

    @property
    def control_channel(self) -> Channel:
        return self.channels["control"]

    async def _async_is_alive(self) -> bool:
        return self._kernel.alive

    is_alive = _async_is_alive


class SessionKernel:
    """A kernel in a session, in the place of jupyter_client's kernel manager. path: of the session's server. ended: why
    the session is over, None while the hub has it, HubSilent at once if the hub does not say."""

    ipykernel = False  # nbclient would give it a command line
    has_kernel = True

    def __init__(
        self,
        root: str,
        path: str,
        token: SecretStr,
        ended: Callable[[], EngineError | None],
        say: Callable[[str], None],
    ) -> None:
        self.token, self.say = token, say
        self._ended = ended
        self._base = f"{root}/{quote(path)}/"
        self._http = httpx.Client(base_url=self._base, auth=Token(token), timeout=httpx.Timeout(30, connect=10))
        self.kernel_id = ""
        self.alive = True
        self.fault: EngineError | None = None
        self.on_over: Callable[[Exception], None] = lambda error: None
        self._silent_since: float | None = None

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self, name: str, cwd: str, seconds: float) -> None:
        """Start the kernel `name` in the folder `cwd` below home. An error names what is not there."""
        names = self._names(seconds)
        if name not in names:
            raise SettingsError(
                f"The session has no kernel {name!r}.",
                f"It has: {', '.join(sorted(names)) or 'none'}.",
                "Choose one with -k, or another environment.",
            )
        if cwd and self._asked("GET", f"api/contents/{quote(cwd)}", params={"content": "0"}).status_code == 404:
            raise SettingsError(f"The session's home has no folder {cwd!r}.", remedy="Make it, or name another.")
        answer = self._asked("POST", "api/kernels", json={"name": name, "path": cwd}, timeout=max(60.0, seconds))
        if answer.status_code != 201:
            raise StartFailed(f"The kernel {name!r} could not be started.", f"The session answers: {said(answer)}.")
        self.kernel_id = str(answer.json()["id"])

    def _names(self, seconds: float) -> set[str]:
        answer = self._asked("GET", "api/kernelspecs", timeout=max(60.0, seconds))
        if answer.status_code in (401, 403):
            raise StartFailed(
                "This token may not use the session.",
                f"It answers {answer.status_code}: {said(answer)}.",
                "The token needs the scope access:servers of yourself.",
            )
        specs = answer.json().get("kernelspecs") if answer.status_code == 200 else None
        if not isinstance(specs, dict):
            raise StartFailed(
                "The session cannot be reached through the hub.",
                f"It answers {answer.status_code}: {said(answer)}.",
                "OBERALP_HUB must be the address of the hub in your browser.",
            )
        return set(specs)

    def _asked(self, method: str, path: str, **options: Any) -> httpx.Response:
        """An answer of the session's server; asked again a few times while the way to it is being made."""
        for last in (False, False, False, False, True):
            try:
                answer = self._http.request(method, path, **options)
                if last or answer.status_code not in AWAY:
                    return answer
            except httpx.TransportError as error:
                if last:
                    raise HubSilent("The session cannot be reached through the hub.", f"{error}.") from None
            threading.Event().wait(1)
        raise AssertionError

    # --- while it lives ----------------------------------------------------------------------------------------------

    @property
    def socket_url(self) -> str:
        parts = urlsplit(f"{self._base}api/kernels/{self.kernel_id}/channels")
        scheme = "wss" if parts.scheme == "https" else "ws"
        return urlunsplit((scheme, parts.netloc, parts.path, "", ""))

    def client(self) -> SessionKernelClient:
        return SessionKernelClient(self)

    def look(self) -> str:
        """The kernel's state. KernelDied if it is gone, EngineError if the session is; "" when nobody knows now."""
        lost = False
        try:
            answer = self._http.get(f"api/kernels/{self.kernel_id}")
            if answer.status_code == 200:
                self._silent_since = None
                state = str(answer.json().get("execution_state", ""))
                if state != "dead":
                    return state
            lost = answer.status_code in (200, 404)
        except (httpx.TransportError, ValueError):
            pass
        try:
            error = self._ended()
            self._silent_since = None
        except HubSilent as silence:
            self._silent_since = self._silent_since or time.monotonic()
            if time.monotonic() - self._silent_since > PATIENCE:
                raise silence
            return ""
        if error is not None:
            raise error
        if lost:
            raise KernelDied
        return ""

    def over(self, error: Exception) -> None:
        """The run cannot go on. From the line's or the lease's thread."""
        if isinstance(error, KernelDied):
            self.alive = False  # nbclient looks once a second, and says so
            return
        if isinstance(error, EngineError):
            self.fault = self.fault or error
        self.on_over(error)

    # --- as nbclient calls a kernel manager --------------------------------------------------------------------------

    async def is_alive(self) -> bool:
        return self.alive

    async def interrupt_kernel(self) -> None:
        await asyncio.to_thread(self._http.post, f"api/kernels/{self.kernel_id}/interrupt")

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """The kernel ends with its session."""

    async def cleanup_resources(self, restart: bool = False) -> None:
        """Nothing of it is here."""

    def close(self) -> None:
        self._http.close()
