"""What was asked of a kernel and is not answered yet, so that nothing is lost with a connection. Pure.

A run must neither hang on an answer that was lost nor run a cell twice. So a request stays on record until the kernel
has sent both its reply and that it is idle again; if a connection broke in between and the kernel has nothing to do,
`settled` decides from the kernel's own count of cells what became of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ipytune.papermill.wire import Message

PROBE = """\
def _ipytune_probe():
    import json
    shell = get_ipython()
    last = shell.last_execution_result
    error = last and (last.error_before_exec or last.error_in_exec)
    told = {"count": shell.execution_count, "error": error and [type(error).__name__, str(error)[:2000]]}
    print(json.dumps(told))
try:
    _ipytune_probe()
finally:
    del _ipytune_probe
"""
"""Run silently, which IPython neither counts nor remembers: how many cells it has run, and how the last one ended."""


class Fate(Enum):
    NEVER_ARRIVED = "never arrived"
    FINISHED = "finished"
    OTHER_KERNEL = "other kernel"
    """The kernel has run fewer cells than before: it died and was started anew."""


@dataclass
class Request:
    message: Message
    channel: str
    reply: Message | None = None
    idle: bool = False

    @property
    def counted(self) -> bool:
        """Whether it is a cell: running it twice would not be the same as once."""
        content = self.message["content"]
        return self.message["header"]["msg_type"] == "execute_request" and not content.get("silent")


@dataclass
class Requests:
    """count: how many cells the kernel has run, as far as its replies told."""

    count: int = 0
    open: dict[str, Request] = field(default_factory=dict)

    def sent(self, message: Message, channel: str) -> None:
        if channel in ("shell", "control") and message["header"]["msg_type"].endswith("_request"):
            self.open[message["header"]["msg_id"]] = Request(message, channel)

    def received(self, message: Message) -> list[Message]:
        """What to hand on now. A reply waits for the idle status, which says that all output has come."""
        request = self.open.get(str(message["parent_header"].get("msg_id", "")))
        if request is None:
            return [message]
        if message.get("channel") == "iopub":
            if message["msg_type"] != "status" or message["content"].get("execution_state") != "idle":
                return [message]
            request.idle = True
            return [message, *self._answered(request)]
        if message["msg_type"].endswith("_reply"):
            request.reply = message
            return self._answered(request)
        return [message]

    def _answered(self, request: Request) -> list[Message]:
        if request.reply is None or not request.idle:
            return []
        del self.open[request.message["header"]["msg_id"]]
        number = request.reply["content"].get("execution_count")
        if request.counted and isinstance(number, int):
            self.count = number
        return [request.reply]

    def next_open(self) -> Request | None:
        """The oldest one that is not answered."""
        return next(iter(self.open.values()), None)


def settled(request: Request, before: int, now: int) -> Fate:
    """What became of a cell whose answer was lost. before: cells run before it. now: the number of the next cell."""
    if now <= before:
        return Fate.OTHER_KERNEL
    return Fate.FINISHED if now > before + 1 else Fate.NEVER_ARRIVED


def made_up(request: Request, session: Any, count: int, error: tuple[str, str] | None) -> list[Message]:
    """The answers that were lost, in place of those: what the kernel tells of the cell afterwards, and that some of its
    output may be missing."""
    parent = request.message["header"]
    words = "[ipytune] The connection was lost while this cell ended; some of its output may be missing here.\n"

    def message(kind: str, channel: str, **content: Any) -> Message:
        return {**session.msg(kind, content=content, parent=parent), "channel": channel, "buffers": []}

    note = message("stream", "iopub", name="stderr", text=words)
    idle = message("status", "iopub", execution_state="idle")
    if request.reply is not None:
        return [note, idle, request.reply]
    fault = {} if error is None else {"ename": error[0], "evalue": error[1], "traceback": [f"{error[0]}: {error[1]}"]}
    output = [message("error", "iopub", **fault)] if fault else []
    status = {"status": "error", **fault} if fault else {"status": "ok", "payload": [], "user_expressions": {}}
    reply = message("execute_reply", "shell", execution_count=count, **status)
    return [reply] if request.idle else [note, *output, idle, reply]
