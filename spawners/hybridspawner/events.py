"""The progress of one start: appended by the spawner, replayed to every tab that looks, however late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Event:
    """One step, `at` seconds from the start. `percent` of the way: 0-100; None leaves the bar as it is.

    `offer` names another target (target, title) that the user may choose now instead.
    """

    message: str
    percent: int | None = None
    detail: str = ""
    at: float = 0.0
    offer: dict[str, str] | None = None

    def as_progress(self) -> dict[str, Any]:
        """The form in which JupyterHub's progress stream carries it; everything escaped."""
        event: dict[str, Any] = {"message": self.message, "at": round(self.at, 1)}
        if self.percent is not None:
            event["progress"] = self.percent
        if self.detail:
            event["html_message"] = f"{escape(self.message)}<br><small>{escape(self.detail)}</small>"
        if self.offer:
            event["offer"] = self.offer
        return event


class EventLog:
    """Events of one start, in order. Percentages only rise, so that the bar never jumps back."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._closed = False
        self._percent = 0
        self._began = time.monotonic()
        self._changed = asyncio.Event()  # replaced at each change: whoever waited on the old one wakes up

    def append(
        self, message: str, percent: int | None = None, detail: str = "", offer: dict[str, str] | None = None
    ) -> None:
        """Add an event; one that says the same as the last is dropped."""
        if percent is not None:
            self._percent = percent = max(percent, self._percent)
        if self._closed or (self.events and (self.events[-1].message, self.events[-1].detail) == (message, detail)):
            return
        self.events.append(Event(message, percent, detail, time.monotonic() - self._began, offer))
        self._wake()

    def close(self) -> None:
        """The start has ended: readers finish after the last event."""
        self._closed = True
        self._wake()

    async def follow(self) -> AsyncIterator[Event]:
        """All events from the first one on, until close()."""
        seen = 0
        while True:
            changed = self._changed
            while seen < len(self.events):
                yield self.events[seen]
                seen += 1
            if self._closed:
                return
            if changed is self._changed:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
