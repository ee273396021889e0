"""One save's look at a variable: what its content is, as a hash of its pickle, and how large; or why it cannot be kept.
Nothing is written here."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import threading
import time
from concurrent.futures import Executor
from subprocess import Popen
from typing import Any

from .pickling import Pickler
from .secrecy import Search, Secret, Secrets, is_secret
from .storage import LARGE

_HANDLES = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Semaphore,
    Executor,
    Popen,
)


class TooMuch(Exception):
    """A variable is over a limit."""


class Look:
    """What is known in one save, of all variables."""

    def __init__(self, secrets: Secrets, largest: int, deadline: float) -> None:
        """largest: bytes of one variable. deadline: by the monotonic clock; what is not through by then is left out."""
        self._secrets, self._largest, self._deadline = secrets, largest, deadline
        # of large arrays by address and size, with what keeps the address from being used again
        self._digests: dict[tuple[int, int], tuple[str, pickle.PickleBuffer]] = {}
        self._harmless: set[str] = set()  # digests of large arrays that hold no secret

    def at(self, name: str, value: object) -> tuple[dict[str, Any], dict[int, Any] | None]:
        """An entry of the record with digest, size and large buffers, or with why the variable is left out; and the
        objects that others may hold as well."""
        try:
            if is_secret(name, value):
                raise Secret("its name says that it is secret")
            sink = _Sink(self._secrets.search(), self._largest, self._deadline)
            pickler = Pickler(sink, lambda buffer: self._feed(sink, buffer))
            pickler.dump(value)
        except Exception as error:  # whatever __reduce__ may raise
            plain = isinstance(error, (TooMuch, Secret))
            reason = self._secrets.concealed(str(error) if plain else f"{type(error).__name__}: {error}")
            over = isinstance(error, TooMuch) and time.monotonic() < self._deadline
            return {"left": reason[:200], "handle": isinstance(value, _HANDLES), "over": over}, {}
        return {"digest": sink.digest(), "size": sink.size, "buffers": sink.buffers}, pickler.shareable()

    def digest(self, buffer: pickle.PickleBuffer, raw: memoryview) -> str:
        """Of an array's content. Read once in a save, however many variables hold the same array."""
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return hashlib.blake2b(raw).hexdigest()[:40]
        where = numpy.frombuffer(raw, numpy.uint8).ctypes.data, raw.nbytes
        if where not in self._digests:
            self._digests[where] = hashlib.blake2b(raw).hexdigest()[:40], buffer
        return self._digests[where][0]

    def _feed(self, sink: _Sink, buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            if raw.nbytes < LARGE:
                sink.write(raw)
            else:
                digest = self.digest(buffer, raw)
                sink.buffer(digest, raw.nbytes)
                if digest not in self._harmless:
                    self._secrets.search().feed(raw)
                    self._harmless.add(digest)
        return False


class _Sink(io.RawIOBase):
    """Hashes what is written, within limits, and looks for secrets in it."""

    def __init__(self, search: Search, largest: int, deadline: float) -> None:
        self._hash, self._search, self._largest, self._deadline = hashlib.blake2b(), search, largest, deadline
        self.size = 0
        self.buffers: dict[str, int] = {}

    def buffer(self, digest: str, size: int) -> None:
        """A large array, of which the digest stands for the content."""
        self.buffers[digest] = size
        self.size += size
        self.write(digest.encode())

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.size += view.nbytes
        if self.size > self._largest:
            raise TooMuch(f"it is larger than {readable(self._largest)}")
        if time.monotonic() > self._deadline:
            raise TooMuch("saving took too long")
        self._hash.update(view)
        self._search.feed(view)
        return view.nbytes

    def digest(self) -> str:
        return self._hash.hexdigest()[:40]


def readable(count: int) -> str:
    """A number of bytes for a message."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
