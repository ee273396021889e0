"""Answers that were paid for, in a file that only grows: one JSON object a line, found again by the key of its content.

What it promises:
- An answer is in the file, beyond Python's buffers, before anything is done with it; `sync` saves it from a power cut.
- The key names server, model, messages, options and repeat, so an answer counts wherever the same would be asked again.
- A line that was cut off when a process was killed is removed; the answers before it count.
- One writer at a time: a second process on the same directory is refused.
- No key of an endpoint is ever in it. In memory it holds some hundred bytes an answer, whatever its length.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ipytune.endpoints.records import Endpoint


class InUse(ValueError):
    """Another process is writing into the same directory."""


@dataclass(frozen=True)
class Problem:
    """Why there is no answer: the kind of the error, and what it told."""

    kind: str
    what: str
    why: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, error: Exception) -> Problem:
        """Of an EndpointError, whose words hold no key."""
        words = (getattr(error, name, "") for name in ("what", "why", "remedy"))
        return cls(type(error).__name__, *map(str, words))

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.remedy) if part)


@dataclass(frozen=True)
class Record:
    """One answer, or why there is none. seconds: the whole time; ttft: until the first token; at: when, UTC."""

    key: str
    purpose: Literal["answer", "judge"]
    endpoint: str
    url: str
    model: str
    repeat: int = 0
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int = 0
    tokens_estimated: bool = False
    seconds: float | None = None
    ttft: float | None = None
    at: str = ""
    problem: Problem | None = None

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Record:
        """Raises ValueError for what is no record."""
        try:
            values = json.loads(line)
            problem = values.pop("problem", None)
            record = cls(**values, problem=None if problem is None else Problem(**problem))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a record: {error}") from None
        if not isinstance(record.key, str) or not isinstance(record.text, str):
            raise ValueError("not a record: its key or text is no text")
        return record


def content_key(
    endpoint: Endpoint, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], repeat: int
) -> str:
    """The same for the same question to the same model of the same server; the endpoint's name does not matter."""
    content = [endpoint.api_root, endpoint.model, [dict(message) for message in messages], dict(options), repeat]
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


class Ledger:
    """The answers in one file, and in files of others in the same directory that are only read.

    path: where new ones go.   read: further files.   Opening an existing file cuts off a torn last line.
    Raises InUse, and OSError where the directory cannot be written.
    """

    def __init__(self, path: Path, read: Sequence[Path] = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._files = [path, *read]
        self._places: dict[bytes, tuple[int, int]] = {}
        self._file: BinaryIO = path.open("ab")
        self._dirty = False
        try:
            _lock(self._file, path)
            size = self._index(0)
            if size < path.stat().st_size:
                self._file.truncate(size)
            for number in range(1, len(self._files)):
                self._index(number)
        except BaseException:
            self._file.close()
            raise

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._places

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> Record | None:
        """The answer with this key, read from the file; None when there is none yet, or only errors."""
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        with self._files[place[0]].open("rb") as file:
            file.seek(place[1])
            return Record.read(file.readline())

    def place(self, key: str) -> int | None:
        """Where in its file the answer begins (`read_answer`); None when there is none."""
        place = self._places.get(bytes.fromhex(key))
        return None if place is None else place[1]

    def append(self, record: Record) -> None:
        """One write of one line. An answer with a problem is kept to be read, and asked again by the next run."""
        line = record.line()
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        self._dirty = True
        if record.problem is None:
            self._places[bytes.fromhex(record.key)] = (0, offset)

    def sync(self) -> None:
        """Have the disk write what was appended; blocks, so it belongs in a thread."""
        if self._dirty and not self._file.closed:
            self._dirty = False
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close; a file into which nothing was written is removed."""
        self.sync()
        self._file.close()
        if self.path.exists() and self.path.stat().st_size == 0:
            self.path.unlink()

    def _index(self, number: int) -> int:
        """Notes where the answers of a file are; its length without a torn last line."""
        offset = 0
        with self._files[number].open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    record = Record.read(line)
                    if record.problem is None:
                        self._places.setdefault(bytes.fromhex(record.key), (number, offset))
                except ValueError:
                    pass  # a line torn in the middle of the file, by a full disk for example: asked again
                offset += len(line)
        return offset


def read_answer(path: Path, place: int) -> Record:
    """The answer that begins there; takes no lock, so it can be read while others are appended. Raises ValueError."""
    with path.open("rb") as file:
        file.seek(place)
        return Record.read(file.readline())


def shared_cache(directory: Path) -> Ledger:
    """The answers of all runs that name this directory; each run writes a file of its own, so none waits."""
    directory = directory.expanduser()
    others = sorted(directory.glob("answers-*.jsonl"))
    return Ledger(directory / f"answers-{uuid.uuid4().hex}.jsonl", others)


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows, where the second writer is not noticed
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(
            f"Another process is evaluating into {path.parent}. Wait for it, stop it, or name another directory."
        ) from None
    except OSError:
        pass  # file systems without locks (some Lustre mounts): the second writer is not noticed
