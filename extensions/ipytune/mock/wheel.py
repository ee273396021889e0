"""One timer for everything that is due: thousands of tokens a second, each at its own moment, without a task for each.

An event loop's own timers are woken by a poll whose time-out is in whole milliseconds, too coarse for tokens. On Linux
the wheel is woken by a timer of the kernel's (timerfd), which is exact to some tens of microseconds; elsewhere by the
loop's. Moments are nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from heapq import heappop, heappush
from time import monotonic_ns
from typing import Protocol

_AT_ONCE = 128  # due items handled before the loop looks at its sockets again


class Due(Protocol):
    """Something that has its moment. `fire` says when it is due again, None when never."""

    def fire(self) -> int | None: ...


class Wheel:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # The serial number keeps the order of those that are due at the same moment.
        self._heap: list[tuple[int, int, Due]] = []
        self._serial = 0
        self._armed: int | None = None
        self._running = False
        self._closed = False
        self._alarm: _KernelAlarm | _LoopAlarm
        try:
            self._alarm = _KernelAlarm(loop, self._run)
        except OSError:
            self._alarm = _LoopAlarm(loop, self._run)

    def at(self, due: int, item: Due) -> None:
        if self._closed:
            return
        self._serial += 1
        heappush(self._heap, (due, self._serial, item))
        if not self._running and (self._armed is None or due < self._armed):
            self._armed = due
            self._alarm.arm(due)

    def close(self) -> None:
        self._closed = True
        self._heap.clear()
        self._alarm.close()

    def _run(self) -> None:
        heap = self._heap
        self._running = True
        try:
            left = _AT_ONCE
            while heap and left and heap[0][0] <= monotonic_ns():
                left -= 1
                item = heappop(heap)[2]
                again = item.fire()
                if again is not None:
                    self._serial += 1
                    heappush(heap, (again, self._serial, item))
        finally:
            self._running = False
            self._armed = heap[0][0] if heap else None
            self._alarm.arm(self._armed)


class _Moment(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Setting(ctypes.Structure):
    _fields_ = [("interval", _Moment), ("value", _Moment)]


class _KernelAlarm:
    """timerfd, for which Python before 3.13 has no function. Raises OSError where there is none."""

    _MONOTONIC, _ABSOLUTE = 1, 1

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        if sys.platform != "linux":
            raise OSError("no timerfd")
        self._library = ctypes.CDLL(None, use_errno=True)
        try:
            self._file = self._library.timerfd_create(self._MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:
            raise OSError("no timerfd") from None
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._setting = _Setting()
        self._pointer = ctypes.byref(self._setting)
        self._loop = loop
        loop.add_reader(self._file, ring)

    def arm(self, due: int | None) -> None:
        # Setting it also takes back a ring that was not answered; 0 switches it off.
        value = self._setting.value
        value.seconds, value.nanoseconds = divmod(due, 1_000_000_000) if due is not None else (0, 0)
        self._library.timerfd_settime(self._file, self._ABSOLUTE, self._pointer, None)

    def close(self) -> None:
        self._loop.remove_reader(self._file)
        os.close(self._file)


class _LoopAlarm:
    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, due: int | None) -> None:
        self.close()
        if due is not None:
            self._handle = self._loop.call_at(due / 1e9, self._ring)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
