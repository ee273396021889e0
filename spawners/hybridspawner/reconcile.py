"""Nothing is left behind: what a hub that died began is looked for when the next one starts, and now and then after.

Three ways of being left behind, and what finds them:

- a session on record that JupyterHub does not count as running (the hub was killed in the middle of a stop): its record
  is loaded, and its end is brought about;
- a job, pod or process with a mark of this hub that is on no record (a database that was lost or restored): the target
  is asked for such strays and ends them;
- a session whose client has died, if it was asked for with a lease: see lease_watch.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from sqlalchemy.exc import SAWarning

from . import metrics
from .deployment import Deployment, deployment_of
from .lease_watch import watch_leases
from .session import mark_of
from .spawner import HybridSpawner

log = logging.getLogger(__name__)

INTERVAL = 600.0  # seconds between two looks for strays


class MarksOnRecord(Collection[str]):
    """The marks of all sessions and leftovers in the database, read when the first one is looked for.

    Not earlier: a target lists what it has first, and a mark is always committed before its job is submitted, so that
    whatever is in the list and began in time is on record by then.
    """

    def __init__(self, db: Any) -> None:
        self._db = db

    @cached_property
    def _marks(self) -> set[str]:
        found = set()
        for _, state in _records(self._db):
            children = dict(state.get("children") or {}).values()
            leftovers = [entry[1] for entry in state.get("leftovers") or []]
            found |= {mark_of(child) for child in [*children, *leftovers]}
        return found - {""}

    def __contains__(self, mark: object) -> bool:
        return mark in self._marks

    def __iter__(self) -> Iterator[str]:
        return iter(self._marks)

    def __len__(self) -> int:
        return len(self._marks)


def watch(site_file: Path, state_dir: Path) -> None:
    """Begin, in the hub that loads its configuration now; elsewhere (a script that reads it) nothing happens."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    if JupyterHub.initialized():
        task = loop.create_task(_reconcile(JupyterHub.instance(), site_file, state_dir))
        _running.add(task)
        task.add_done_callback(_running.discard)


_running: set[asyncio.Task[None]] = set()


async def _reconcile(app: Any, site_file: Path, state_dir: Path) -> None:
    while getattr(app, "http_server", None) is None:  # set when the records of running sessions have been loaded
        await asyncio.sleep(0.5)
    load_records(app)
    deployment = deployment_of(app.hub, _connect_url(app), site_file, state_dir)
    await asyncio.gather(_end_all_strays(deployment, app.db), watch_leases(app, deployment.leases))


def _connect_url(app: Any) -> str | None:
    """The trait `hub_connect_url` as every spawner will have it: theirs and the watchers' deployment must be the same
    one. The application's trait of this name is another: JupyterHub adds a path to it, and its `hub` knows it."""
    for name in (kind.__name__ for kind in app.spawner_class.mro()):
        if "hub_connect_url" in app.config.get(name, {}):
            found: str | None = app.config[name].hub_connect_url
            return found
    return None


async def _end_all_strays(deployment: Deployment, db: Any) -> None:
    while True:
        await end_strays(deployment, db)
        await asyncio.sleep(INTERVAL)


def _records(db: Any, *conditions: Any) -> list[tuple[int, dict[str, Any]]]:
    """(key, state) of the spawners on record; the columns only, since there may be many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # of JupyterHub's own column type
        rows = db.query(orm.Spawner.id, orm.Spawner.state).filter(*conditions).all()
    return [(key, state) for key, state in rows if isinstance(state, dict)]


def load_records(app: Any) -> None:
    """Load the records that hold a session or leftovers though no server is known, so that they are ended."""
    stopped = orm.Spawner.server_id.is_(None)
    for key in [k for k, state in _records(app.db, stopped) if state.get("target") or state.get("leftovers")]:
        try:
            record = app.db.get(orm.Spawner, key)
            spawner = app.users[record.user].spawners[record.name]
            if isinstance(spawner, HybridSpawner):
                spawner.end_leftovers()
        except Exception:
            log.exception("Cannot load what is on record of session %s", key)


async def end_strays(deployment: Deployment, db: Any) -> None:
    """Have every target end what this hub began there and knows no more."""
    for name, target in deployment.targets.items():
        try:
            ended = await target.strays(deployment.hub_name, MarksOnRecord(db))
        except Exception as error:
            log.warning("Cannot look for strays on %s: %s", name, error)
            continue
        if ended:
            metrics.strays_ended(name, len(ended))
            log.warning("On %s were, without a session on record, and are ended: %s", name, ", ".join(ended))
