"""The directory of one run: a record, and the files that it names. Their owner alone can read them; each file is
written aside and then takes its place in one step."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .pickling import Pickler, Unpickler

RECORD = "record.json"
LARGE = 1 << 16  # bytes of a buffer from which it is a file of its own
STALE_DAYS = 30


class Refused(Exception):
    """The directory cannot be trusted."""


def root() -> Path:
    """Where the directories of all runs are."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "ipytune" / "resume"


def drop_stale(but: str) -> None:
    """Remove what runs left here a month ago, but for this one."""
    for old in root().iterdir() if root().is_dir() else ():
        if old.name != but and time.time() - old.stat().st_mtime > STALE_DAYS * 86400:
            shutil.rmtree(old, ignore_errors=True)


class Store:
    """One run's directory. A group is a file of several variables, named by their content, beside large arrays in files
    of their own: {"file", "names", "buffers"}."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def make_private(self) -> None:
        """Makes the directory, for its owner alone; or refuses one that others can write into."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = self.directory.lstat()
        if found.st_uid != os.getuid() or self.directory.is_symlink() or not self.directory.is_dir():
            raise Refused(f"{self.directory} is not a directory of this user's")
        if found.st_mode & 0o077:
            self.directory.chmod(0o700)

    def has_record(self) -> bool:
        return (self.directory / RECORD).exists()

    def record(self) -> dict[str, Any]:
        """As it was last written. Raises FileNotFoundError."""
        found: dict[str, Any] = json.loads((self.directory / RECORD).read_text())
        return found

    def write_record(self, record: Mapping[str, Any]) -> None:
        """In the place of the last. Its groups are written before."""
        _write(self.directory / RECORD, json.dumps(record).encode())

    def tidy(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Removes all but the record and its groups."""
        wanted = {RECORD}
        for group in groups:
            wanted.update((group["file"], *group["buffers"]))
        for file in self.directory.iterdir():
            if file.name not in wanted:
                file.unlink()

    def write_group(
        self, name: str, values: Mapping[str, Any], digest: Callable[[pickle.PickleBuffer, memoryview], str]
    ) -> dict[str, Any]:
        """digest: of an array's content, which names its file: what is there is not written again. Raises whatever
        pickling may raise."""
        buffers: list[str] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < LARGE:
                return True
            file = self.directory / f"{digest(buffer, raw)}.data"
            if not file.exists():
                _write(file, raw)
            buffers.append(file.name)
            return False

        aside = self.directory / f"{name}.part"
        with _opened(aside) as stream:
            Pickler(stream, keep).dump(dict(values))
        aside.replace(self.directory / name)
        return {"file": name, "names": list(values), "buffers": buffers}

    def read_group(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Its variables by name. Raises whatever a pickle may raise."""
        buffers = [bytearray((self.directory / name).read_bytes()) for name in group["buffers"]]
        with (self.directory / group["file"]).open("rb") as stream:
            found: dict[str, Any] = Unpickler(stream, buffers=buffers).load()
        return found

    def drop(self) -> None:
        """Nothing is left of the run."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb")


def _write(path: Path, data: Any) -> None:
    aside = path.with_name(path.name + ".part")
    with _opened(aside) as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
