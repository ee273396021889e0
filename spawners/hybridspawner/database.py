"""SQLite for a hub: a log written ahead, so that a commit does not hold up everybody.

JupyterHub commits some ten times for each start, in its event loop. SQLite's default rewrites and flushes files several
times for each; with a log written ahead (sqlite.org/wal.html) a commit is one append. A hub that is killed loses
nothing; a machine that loses power may lose the last commits, and what they began is found by its mark (reconcile.py).
"""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


def write_ahead() -> None:
    """Use it for every SQLite database that this process opens from now on; other databases are left alone.

    The file must lie on a local disk: SQLite's log does not work over a network file system.
    """
    if not event.contains(Engine, "connect", _on_connect):
        event.listen(Engine, "connect", _on_connect)


def _on_connect(connection: Any, _: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
