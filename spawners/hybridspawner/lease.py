"""Leases: a session that nobody watches any more ends, however its client died.

A request with the field `lease` asks for it: the session goes on as long as its lease is renewed, each time for that
long. This module keeps the book, and nothing else; `lease_watch` renews, ends and removes. What the book promises:

- a lease lapses at the first look after its time, and not before; once lapsed it cannot be renewed, only begun anew;
- time in which nobody looked (the hub stood still) is given back, since renewals could not be heard either;
- what has lapsed is told at every look until it is `over`, so that an end that failed is tried again.

The book is in memory only: which sessions have a lease is in their stored options, and a hub that starts gives each of
them a full lease.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from .request import InvalidRequest, lease_seconds

LOOK_SECONDS = 2.0  # between two looks at the book

Key = tuple[int, str]
"""The user's id in the hub's database, and the server's name."""


def lease_of(options: Any) -> int | None:
    """The seconds of the lease in stored options; None without one, and for whatever is no longer allowed."""
    text = options.get("lease") if isinstance(options, dict) else None
    if not isinstance(text, str):
        return None
    try:
        return lease_seconds(text)
    except InvalidRequest:
        return None


@dataclass
class _Lease:
    seconds: int
    until: float
    lapsed: bool = False
    said: bool = False


class Leases:
    """The leases of one hub. `now` is a clock in seconds that never goes back."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._leases: dict[Key, _Lease] = {}
        self._looked: float | None = None

    def __contains__(self, key: Key) -> bool:
        return key in self._leases

    def __len__(self) -> int:
        return len(self._leases)

    def begin(self, key: Key, seconds: int | None) -> None:
        """A session starts, with a lease of so many seconds or without: whatever was before is forgotten."""
        self.over(key)
        if seconds is not None:
            self._leases[key] = _Lease(seconds, self._now() + seconds)

    def renew(self, key: Key) -> float | None:
        """The lease lasts for its full time again; the seconds of that. None if there is none, or it has lapsed."""
        lease = self._leases.get(key)
        if lease is None or lease.lapsed:
            return None
        lease.until = self._now() + lease.seconds
        return float(lease.seconds)

    def look(self) -> list[Key]:
        """The leases that have lapsed and are not over yet."""
        now = self._now()
        unseen = 0.0 if self._looked is None else now - self._looked - 2 * LOOK_SECONDS
        self._looked = now
        for lease in self._leases.values():
            if unseen > 0 and not lease.lapsed:
                lease.until += unseen
            lease.lapsed = lease.lapsed or now > lease.until
        return [key for key, lease in self._leases.items() if lease.lapsed]

    def has_lapsed(self, key: Key) -> bool:
        """Whether it lapsed and the session was not begun anew since."""
        return key in self._leases and self._leases[key].lapsed

    def say_once(self, key: Key) -> bool:
        """Whether it is the first time that somebody is told of this lapse."""
        lease = self._leases[key]
        first, lease.said = not lease.said, True
        return first

    def over(self, key: Key) -> None:
        """Nothing is left of the session: forget its lease."""
        self._leases.pop(key, None)
