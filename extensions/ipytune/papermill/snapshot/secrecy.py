"""What looks secret, and where it shows up: in another variable, in an environment variable, in a message.

A name that says so is enough (`api_key`). `key` and `token` are also words of mappings and of models: then the value
must look like a secret too.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any

_SECRET = re.compile(r"(^|_)(api_?key|(access|secret|private)_?key|secret|passw(or)?d|passphrase|credentials?)$", re.I)
_MAYBE_SECRET = re.compile(r"(^|_)(key|token)$", re.I)  # or a key of a mapping, a token of a model
_LOOKS_SECRET = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w\-./+=:~]{12,}")
_SHORTEST = 8  # of a value that is searched for: a shorter one is found by chance
_PIECE = 1 << 24  # bytes that are searched at once, so that no copy of a whole array is made


class Secret(Exception):
    """A variable contains something secret."""


def is_secret(name: str, value: object) -> bool:
    """Whether a variable of this name and value looks secret. Only text can."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str):
        return False
    return bool(_SECRET.search(name) or (_MAYBE_SECRET.search(name) and _LOOKS_SECRET.fullmatch(value)))


class Secrets:
    """The secret values of the environment and of a notebook's variables."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        found = {f"${name}": value for name, value in os.environ.items() if is_secret(name, value)}
        found.update((name, value) for name, value in variables.items() if is_secret(name, value))
        self._values = {
            name: value if isinstance(value, bytes) else value.encode(errors="replace")
            for name, value in found.items()
            if len(value) >= _SHORTEST
        }

    def among(self, environ: Mapping[str, str]) -> set[str]:
        """The names of environment variables that look secret or hold something secret."""
        return {
            name
            for name, value in environ.items()
            if is_secret(name, value) or any(secret in os.fsencode(value) for secret in self._values.values())
        }

    def concealed(self, message: str) -> str:
        """The message with names in place of secret values."""
        for name, secret in self._values.items():
            message = message.replace(secret.decode(errors="replace"), name)
        return message

    def search(self) -> Search:
        """Of one stream."""
        return Search(self._values)


class Search:
    """Finds secret values in a stream, also one that begins in one piece and ends in the next: as text, and as numpy
    holds text, four bytes a letter."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self._forms = [(name, form) for name, value in values.items() for form in (value, _wide(value))]
        self._longest = max((len(form) for _, form in self._forms), default=0)
        self._tail = b""

    def feed(self, view: memoryview) -> None:
        """The next piece, of bytes. Raises Secret."""
        for start in range(0, view.nbytes if self._forms else 0, _PIECE):
            text = self._tail + bytes(view[start : start + _PIECE])
            for name, form in self._forms:
                if form in text:
                    raise Secret(f"it holds the value of {name}")
            self._tail = text[-self._longest :]


def _wide(value: bytes) -> bytes:
    return value.decode(errors="replace").encode(f"utf-32-{sys.byteorder[0]}e", errors="replace")
