"""Keeps the variables of a notebook between kernels. The texts of these modules run inside the kernel, as a package of
the name `_ipytune_state`: they import one another by relative names, and may use the standard library and cloudpickle,
nothing of ipytune.

- Variables that share a changeable object are kept together, so that they share it again: the optimizer and its model.
  Groups are apart, so that one which cannot be read does not spoil another.
- Every save looks at every variable (its pickle is hashed): what was changed in place is seen. What is unchanged is not
  written again, nor is a large array that another variable holds as well.
- A function of the notebook finds its globals in the notebook again, not in a copy.
- A value that looks secret, by its name or because a secret-looking environment variable holds it, is never written,
  nor anything that contains it.
- The directory is 0700, its files 0600; the record is replaced in one step, so a kill at any moment leaves the last.

`state.py` asks the questions below: text in, text out. `keeper` answers them; `notebook` says what there is to keep,
`looking` what each variable is, `secrecy` what must not be written, `pickling` how values are written, `storage` where.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from .keeper import MOMENTS, Keeper
from .storage import Store, drop_stale, root

_keeper: Keeper


def begin(run: str, largest: int, altogether: int, seconds: float) -> str:
    """In a fresh kernel, before any cell."""

    def action() -> dict[str, Any]:
        global _keeper
        _keeper = Keeper(Store(root() / run), largest, altogether, seconds)
        drop_stale(but=run)
        return {}

    return _answer(action)


def save(cell: int) -> str:
    """After the code cell of this number: what was left out and why, and the seconds that it took."""

    def action() -> dict[str, Any]:
        begun = time.monotonic()
        record = _keeper.save(cell)
        return {
            "left": {name: entry["left"] for name, entry in record["names"].items() if "left" in entry},
            "secret_environ": record["secret_environ"],
            "seconds": time.monotonic() - begun,
        }

    return _answer(action)


def look() -> str:
    """The record of an earlier kernel, without any value; null when there is none."""

    def action() -> dict[str, Any] | None:
        if not _keeper.store.has_record():
            return None
        _keeper.store.make_private()
        record = _keeper.store.record()
        return {
            "cell": record["cell"],
            "names": {
                name: {"changed": entry["changed"], "left": entry.get("left"), "handle": entry.get("handle", False)}
                for name, entry in record["names"].items()
                if name != MOMENTS  # known for every cell: none has to run again for it
            },
            "secret_environ": record["secret_environ"],
        }

    return _answer(action)


def restore(without: list[str], first: int) -> str:
    """Puts the variables back, but for those named, to go on with this code cell; which could not be read, and why."""
    return _answer(lambda: {"failed": _keeper.restore(_keeper.store.record(), without, first)})


def before(cell: int) -> str:
    """Working directory and random numbers as they were before this code cell."""
    return _answer(lambda: _keeper.before(cell))


def drop() -> str:
    """Removes the record."""
    return _answer(lambda: _keeper.store.drop())


def _answer(action: Callable[[], object]) -> str:
    """What the client reads: never an exception, which would go to a log, and never a user's value."""
    try:
        return json.dumps(action())
    except Exception as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:300]})
