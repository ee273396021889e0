"""Names of the nodes in /etc/hosts, between marks: real sites have DNS, and a hub connects to a node by its name.

Each cluster has a block of its own, known by its state directory, so that one cluster's end leaves another's names.
"""

import fcntl
from collections.abc import Callable
from pathlib import Path

HOSTS_FILE = Path("/etc/hosts")


def _marks(owner: str) -> tuple[str, str]:
    return f"# oberalp test cluster {owner}: begin", f"# oberalp test cluster {owner}: end"


def with_block(text: str, owner: str, names: list[str]) -> str:
    """The hosts file `text` with the block of `owner`: each of `names` at 127.0.0.1. Any older block goes."""
    begin, end = _marks(owner)
    text = without_block(text, owner)
    separator = "" if not text or text.endswith("\n") else "\n"
    return text + separator + "\n".join([begin, *(f"127.0.0.1 {name}" for name in names), end]) + "\n"


def without_block(text: str, owner: str) -> str:
    """The hosts file `text` without the block of `owner`; unchanged if there is none or its end is missing."""
    begin, end = _marks(owner)
    lines = text.splitlines(keepends=True)
    bare = [line.rstrip("\r\n") for line in lines]
    if begin not in bare or end not in bare[bare.index(begin) :]:
        return text
    first = bare.index(begin)
    last = bare.index(end, first)
    return without_block("".join(lines[:first] + lines[last + 1 :]), owner)


def add_names(owner: str, names: list[str], path: Path = HOSTS_FILE) -> None:
    """Write the block of `owner`."""
    _rewrite(path, lambda text: with_block(text, owner, names))


def remove_names(owner: str, path: Path = HOSTS_FILE) -> None:
    """Remove the block of `owner`, if there is one."""
    _rewrite(path, lambda text: without_block(text, owner))


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    # In place and under a lock: in a container the file is a mount, which cannot be replaced by renaming.
    with path.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = file.read()
        after = change(before)
        if after != before:
            file.seek(0)
            file.write(after)
            file.truncate()
