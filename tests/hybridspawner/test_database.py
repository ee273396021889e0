"""SQLite writes ahead, and a process that is killed right after a commit loses nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine

from hybridspawner import database


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    if event.contains(Engine, "connect", database._on_connect):
        event.remove(Engine, "connect", database._on_connect)


def test_sqlite_writes_ahead_once_it_is_asked_to(tmp_path: Path) -> None:
    database.write_ahead()
    database.write_ahead()  # a configuration that is loaded twice
    with create_engine(f"sqlite:///{tmp_path / 'hub.sqlite'}").connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1  # NORMAL


KILLED = """
import os, signal, sys
from sqlalchemy import create_engine, text
from hybridspawner.database import write_ahead
write_ahead()
with create_engine("sqlite:///" + sys.argv[1]).connect() as connection:
    connection.execute(text("CREATE TABLE marks (name TEXT)"))
    for number in range(50):
        connection.execute(text("INSERT INTO marks VALUES (:n)"), {"n": str(number)})
        connection.commit()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    file = tmp_path / "hub.sqlite"
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    with create_engine(f"sqlite:///{file}").connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM marks")).scalar() == 50
