"""A server's endpoints in the session's catalogue, for panels, the command line and other processes of the user."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Container
from typing import Any

from ipytune.endpoints.errors import EndpointError
from ipytune.endpoints.records import Endpoint


class Registered:
    """Adds and removes. What cannot be registered is said, and fails nothing: the server itself works.

    name: of the first endpoint, by default its model's; the others are called by their models.
    """

    def __init__(self, say: Callable[[str], None], name: str | None = None) -> None:
        self._say = say
        self._name = name
        self._lock = threading.Lock()
        self._entries: dict[str, Any] = {}
        self._closed = False

    def add(self, endpoint: Endpoint) -> None:
        """Under a name that no other entry has: two sessions may serve the same model."""
        from ipytune.endpoints.catalogue import Catalogue, register

        with self._lock:
            if self._closed:
                return
            wanted = (self._name if not self._entries else None) or endpoint.model.rsplit("/", 1)[-1]
            try:
                name = free_name(wanted, Catalogue.load().names)
                self._entries[endpoint.model] = register(endpoint.model_copy(update={"name": name}))
            except (EndpointError, OSError) as error:
                self._say(f"{endpoint.model} is not in the catalogue: {error}")

    def remove(self, endpoint: Endpoint) -> None:
        with self._lock:
            entry = self._entries.pop(endpoint.model, None)
        if entry is not None:
            entry.close()

    def close(self) -> None:
        """Remove all of them, and take no more."""
        with self._lock:
            self._closed = True
            entries, self._entries = list(self._entries.values()), {}
        for entry in entries:
            entry.close()


def free_name(wanted: str, taken: Container[str]) -> str:
    """`wanted`, or the first of wanted-2, wanted-3 … that is not taken.

    >>> free_name("first", {"first", "first-2"})
    'first-3'
    """
    names = itertools.chain([wanted], (f"{wanted}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)
