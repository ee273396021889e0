"""What could not be proved ended: kept on record, and ended later, however long the scheduler is silent.

A leftover is (target, state of the child). It leaves the list only when its end is proved.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from .diagnose import StartFailed
from .targets.base import SessionSpawner
from .within import within

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0  # seconds between two tries
ONE_TRY = 60.0  # seconds for the proof of one leftover's end; the next try goes on


class Leftovers:
    """Those of one spawner. `build` makes the child of a leftover, `commit` writes the list."""

    def __init__(self, build: Callable[[str, dict[str, Any]], SessionSpawner], commit: Callable[[], None]) -> None:
        self._build, self._commit = build, commit
        self._entries: list[tuple[str, dict[str, Any]]] = []
        self._reaper: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def to_json(self) -> list[list[Any]]:
        return [list(entry) for entry in self._entries]

    def load(self, data: Any) -> None:
        """What to_json wrote; anything else is dropped, since old state must never stop a hub."""
        try:
            self._entries = [(str(target), dict(state)) for target, state in data]
        except (TypeError, ValueError):
            self._entries = []

    def add(self, target: str, state: dict[str, Any]) -> None:
        self._entries.append((target, state))
        self.reap_soon()

    def reap_soon(self) -> None:
        """Begin to end them in the background, unless that is under way."""
        if self._entries and (self._reaper is None or self._reaper.done()):
            self._reaper = asyncio.ensure_future(self._reap_until_done())

    async def reap(self, target: str) -> None:
        """End those on `target`. Raises StartFailed if one resists: a new session must not meet an old one."""
        for entry in [entry for entry in self._entries if entry[0] == target]:
            try:
                gone = await within(self._build(*entry).stop_session(True), ONE_TRY)
            except Exception as error:
                log.warning("Cannot end what is left of a session on %s: %s", target, error)
                gone = False
            if not gone:
                what, why = "Your previous session there has not ended yet.", f"{target} does not confirm its end."
                raise StartFailed(what, why, "Try again in some minutes, or choose another target.", reason="leftover")
            if entry in self._entries:
                self._entries.remove(entry)
            self._commit()

    async def _reap_until_done(self) -> None:
        pause = FIRST_PAUSE
        while self._entries:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            for target in {target for target, _ in self._entries}:
                try:
                    await self.reap(target)
                except StartFailed as failure:
                    log.warning("%s", failure)
