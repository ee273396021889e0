"""The websocket of one kernel, in a thread of its own, so that it is kept alive whatever the notebook's program does.

- A connection that breaks is made again, under the same session id, with growing pauses, for as long as the hub has the
  session and the session has the kernel. The server sends then what the kernel said meanwhile.
- What could not be sent waits. What was sent into a connection that was dead already is found by the request that stays
  open while the kernel has nothing to do, and is settled (`open_requests`).
- What ends the run is told once: a kernel that died, a session that is over, a hub that is silent for too long.
"""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

import websockets
from jupyter_client.session import Session
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect

from ipytune.papermill.errors import KernelUnclear
from ipytune.papermill.open_requests import PROBE, Fate, Request, Requests, made_up, settled
from ipytune.papermill.wire import Message, decode, encode

PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between two attempts to connect."""
LOOK_SOON, LOOK = 2.0, 30.0
"""Seconds between two looks at a kernel with an open request: after a break, and otherwise."""
DEAD_STATES = ("dead", "restarting", "autorestarting")


class KernelDied(Exception):
    """The kernel process is gone; another may have taken its place, which knows nothing."""


class _Deaf(Exception):
    """What is sent over this connection does not reach the kernel: a server that took a new connection for one that it
    had not seen break keeps channels of which the kernel knows nothing. A new session id gets new ones."""


class Line(threading.Thread):
    """deliver: takes each message. look: the kernel's state by the session's REST API ("idle", "busy", …); raises
    KernelDied or an EngineError when there is no kernel to come back to. over: told why the run must end."""

    def __init__(
        self,
        url: str,
        token: SecretStr,
        session: Session,
        deliver: Callable[[Message], None],
        look: Callable[[], str],
        over: Callable[[Exception], None],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(name="ipytune-kernel-line", daemon=True)
        self._url, self._token, self._session = url, token, session
        self._deliver, self._look, self._over, self._say = deliver, look, over, say
        self._requests = Requests()
        self._outgoing: deque[tuple[Message, str]] = deque()
        self._probe: tuple[str, list[str]] | None = None  # id of the question, and what was printed to it
        self._identity = session.session
        self._broken = False  # whether the line broke since the last request was answered
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._up = threading.Event()
        self._closing = False

    # --- from other threads ------------------------------------------------------------------------------------------

    def send(self, message: Message, channel: str) -> None:
        self._call(lambda: self._enqueue(message, channel))

    def close(self) -> None:
        self._closing = True
        self._call(lambda: self._task.cancel() if self._task is not None else None)
        if self.is_alive():
            self.join(10)

    def _call(self, step: Callable[[], Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(step)
        except RuntimeError:
            pass  # the loop is closed: the run is over

    # --- in this thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        try:
            if not self._closing:
                await self._stay_connected()
        except asyncio.CancelledError:
            if not self._closing:
                raise
        except Exception as error:
            self._over(error)

    def _enqueue(self, message: Message, channel: str) -> None:
        self._requests.sent(message, channel)
        self._outgoing.append((message, channel))
        self._wake.set()

    async def _stay_connected(self) -> None:
        attempt, lost = 0, False
        while True:
            try:
                async with connect(
                    f"{self._url}?session_id={self._identity}",
                    additional_headers={"Authorization": f"token {self._token.get_secret_value()}"},
                    max_size=None,
                    open_timeout=60,
                    close_timeout=2,
                ) as socket:
                    if lost:
                        self._say("Connected again; a line of output that was just on its way may be missing")
                    attempt, lost = 0, False
                    await self._converse(socket)
            except (OSError, TimeoutError, asyncio.TimeoutError, websockets.WebSocketException):
                pass
            except _Deaf:
                self._identity = uuid.uuid4().hex
            self._broken = True
            await asyncio.to_thread(self._look)  # is there something to come back to?
            if attempt == 1 and not lost:
                self._say("The connection to the session is lost; trying again")
                lost = True
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            attempt += 1

    async def _converse(self, socket: ClientConnection) -> None:
        """Until the connection breaks."""
        tasks = [asyncio.ensure_future(step) for step in (self._listen(socket), self._talk(socket), self._watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _talk(self, socket: ClientConnection) -> None:
        while True:
            while self._outgoing:
                message, channel = self._outgoing[0]
                await socket.send(encode(message, channel))
                self._outgoing.popleft()
            self._wake.clear()
            await self._wake.wait()

    async def _listen(self, socket: ClientConnection) -> None:
        async for received in socket:
            try:
                message = decode(received)
            except ValueError:
                continue
            if self._probe is not None and message["parent_header"].get("msg_id") == self._probe[0]:
                self._told(message)
                continue
            state = message["content"].get("execution_state") if message["msg_type"] == "status" else None
            if state in DEAD_STATES and not message["parent_header"]:
                raise KernelDied
            for ready in self._requests.received(message):
                self._deliver(ready)
            if not self._requests.open:
                self._broken = False

    # --- what was lost -----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Find a request whose answer is lost: it is open, and twice in a row the kernel had nothing to do."""
        waiting: Request | None = None
        asked: Request | None = None
        self._probe = None
        while True:
            await asyncio.sleep(LOOK_SOON if self._broken or waiting is not None else LOOK)
            request = self._requests.next_open()
            if request is None:
                waiting = asked = None
                continue
            if await asyncio.to_thread(self._look) != "idle":
                waiting = None
            elif request is not waiting:
                waiting = request
            elif request is asked:
                raise _Deaf
            else:
                waiting, asked, self._broken = None, request, True
                self._ask(request)

    def _ask(self, request: Request) -> None:
        if not request.counted and request.reply is None:
            self._again(request)  # to ask twice changes nothing
            return
        content = {"code": PROBE, "silent": True, "store_history": False, "allow_stdin": False, "stop_on_error": False}
        question = self._session.msg("execute_request", content={**content, "user_expressions": {}})
        self._probe = (question["header"]["msg_id"], [])
        self._outgoing.append((question, "shell"))
        self._wake.set()

    def _told(self, message: Message) -> None:
        """A part of the kernel's answer to the probe."""
        assert self._probe is not None
        kind, content = message["msg_type"], message["content"]
        if kind == "stream" and content.get("name") == "stdout":
            self._probe[1].append(str(content.get("text", "")))
        if kind != "status" or content.get("execution_state") != "idle":
            return
        printed, self._probe = "".join(self._probe[1]), None
        request = self._requests.next_open()
        if request is None or not (request.counted or request.reply):
            return  # its answer came before this one after all
        self._settle(request, printed)

    def _settle(self, request: Request, printed: str) -> None:
        before = self._requests.count
        try:
            told = json.loads(printed)
            count, error = int(told["count"]), told["error"] and (str(told["error"][0]), str(told["error"][1]))
        except (ValueError, TypeError, KeyError, IndexError):
            if request.reply is None:
                raise KernelUnclear(
                    "The connection was lost while a cell ended.",
                    "This kernel is not IPython and cannot tell how the cell went.",
                    "Run the notebook again; `ipytune run --resume` goes on after the last finished cell.",
                ) from None
            count, error = before + 2, None
        fate = settled(request, before, count) if request.counted and request.reply is None else Fate.FINISHED
        if fate is Fate.OTHER_KERNEL:
            raise KernelDied
        if fate is Fate.NEVER_ARRIVED:
            self._again(request)
            return
        for answer in made_up(request, self._session, before + 1, error or None):
            for ready in self._requests.received(_as_received(answer)):
                self._deliver(ready)

    def _again(self, request: Request) -> None:
        sent = request.message["header"]["msg_id"]
        if all(message["header"]["msg_id"] != sent for message, _ in self._outgoing):
            # a kernel takes the very same message twice for a forged one, and drops it
            again = {**request.message, "metadata": {**request.message["metadata"], "again": uuid.uuid4().hex}}
            self._outgoing.append((again, request.channel))
        self._wake.set()


def _as_received(message: Message) -> Message:
    return decode(encode(message, message["channel"]))
