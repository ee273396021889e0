"""How a run ends when a signal asks it to: what is open is closed, and papermill's exit status says which it was.

In the main thread only, which is Python's rule; elsewhere, and for a signal that this process was started to ignore
(`nohup`, a shell's `&`), everything stays as it is.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(SystemExit):
    """The run was asked to end by a signal, such as a scheduler's before the walltime is over."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)  # as a shell says it


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated here, once."""

    def end(number: int, frame: FrameType | None) -> None:
        for other in ENDING:
            signal.signal(other, signal.SIG_IGN)  # the end is on its way; a second one must not cut it short
        raise Terminated(number)

    with _handlers(dict.fromkeys(ENDING, end)):
        yield


@contextmanager
def held_signals(say: Callable[[str], object], message: str) -> Iterator[None]:
    """The first of Ctrl-C, SIGTERM and SIGHUP only says the message; the second one raises Terminated."""
    seen = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise Terminated(number)
        seen = True
        say(message)

    with _handlers(dict.fromkeys((signal.SIGINT, *ENDING), hold)):
        yield


@contextmanager
def _handlers(handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: a handler that is not Python's
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
