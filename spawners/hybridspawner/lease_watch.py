"""The hub's side of leases: renewing one, and ending the sessions whose leases have lapsed.

    POST hub/api/hybridspawner/leases/USER[/SERVER]    renew: 200 {"lease": 120, "expires_in": 120.0}

404: no such session (never started, or over); 409: a session without a lease. The scope `servers` is needed.

A session whose lease has lapsed is cancelled while it starts or waits, stopped when it runs, and tried again until
JupyterHub knows it no more. A named server is then removed, once the end of everything that it began is proved: whoever
runs unattended leaves no rows behind. The default server stays, with the reason for the next spawn page.
"""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope
from sqlalchemy.exc import SAWarning
from tornado import web

from .lease import LOOK_SECONDS, Key, Leases, lease_of
from .server_api import end
from .spawner import HybridSpawner

log = logging.getLogger(__name__)

LEASES_PATH = "api/hybridspawner/leases"
LEASES_ROUTES = (rf"/{LEASES_PATH}/([^/]+)", rf"/{LEASES_PATH}/([^/]+)/([^/]*)")


class LeaseHandler(APIHandler):
    """See the module."""

    @needs_scope("servers")
    async def post(self, user_name: str, server_name: str = "") -> None:
        user = self.find_user(user_name)
        spawner = user.spawners.get(server_name) if user is not None else None
        if not isinstance(spawner, HybridSpawner) or not spawner.active or spawner.pending == "stop":
            raise web.HTTPError(404, "No such session")
        if spawner.lease is None:
            raise web.HTTPError(409, "The session has no lease. It ends when it is stopped or its run time is over.")
        leases = spawner.deployment.leases
        if spawner.lease_key not in leases:  # the hub has just been restarted
            leases.begin(spawner.lease_key, spawner.lease)
        expires_in = leases.renew(spawner.lease_key)
        if expires_in is None:
            raise web.HTTPError(404, "No such session: its lease has lapsed")
        self.write(json.dumps({"lease": spawner.lease, "expires_in": expires_in}))


async def watch_leases(app: Any, leases: Leases) -> None:
    """End what has lapsed, for as long as the hub runs."""
    begin_known(app.db, leases)
    ending: dict[Key, asyncio.Task[None]] = {}
    while True:
        for key in leases.look():
            if key not in ending:
                ending[key] = asyncio.ensure_future(_end(app, leases, key))
                ending[key].add_done_callback(lambda _, key=key: ending.pop(key))  # type: ignore[misc]
        await asyncio.sleep(LOOK_SECONDS)


def begin_known(db: Any, leases: Leases) -> None:
    """A full lease for everything on record that was asked for with one; the columns only, since there may be many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # of JupyterHub's own column type
        rows = db.query(orm.Spawner.user_id, orm.Spawner.name, orm.Spawner.user_options).all()
    for user_id, name, options in rows:
        if (seconds := lease_of(options)) is not None and (user_id, name) not in leases:
            leases.begin((user_id, name), seconds)


async def _end(app: Any, leases: Leases, key: Key) -> None:
    """One try. What it cannot finish is left in the book for the next look."""
    try:
        if await _ended(app, leases, key) and leases.has_lapsed(key):
            leases.over(key)
    except Exception:
        log.exception("Cannot end the session %r of user %s, whose lease has lapsed; trying again", key[1], key[0])


async def _ended(app: Any, leases: Leases, key: Key) -> bool:
    """Bring about the end of a session, and remove its named server. Whether nothing is left to do."""
    user_id, name = key
    user = app.users.get(user_id)
    if user is None or name not in user.orm_spawners:
        return True
    spawner = user.spawners[name]
    if not isinstance(spawner, HybridSpawner) or spawner.lease is None:
        return True
    if spawner.active:
        if leases.say_once(key):
            spawner.lease_lapsed()
        if await end(lambda user, name: _stop(app, user, name), user, name) and spawner.ready:
            await _stop(app, user, name)
    return await _removed(app, leases, key, user)


async def _stop(app: Any, user: Any, name: str) -> None:
    """As JupyterHub's handlers stop a server: no more routed, ended, and forgotten."""
    spawner = user.spawners[name]
    spawner._stop_pending = True

    async def stopping() -> None:
        try:
            await app.proxy.delete_user(user, name)
            await user.stop(name)
        except Exception as error:  # an end without proof is on record by now; a route is tried again
            log.warning("%s: %s", spawner._log_name, error)
        finally:
            spawner._stop_future, spawner._stop_pending = None, False

    spawner._stop_future = asyncio.ensure_future(stopping())
    await spawner._stop_future


async def _removed(app: Any, leases: Leases, key: Key, user: Any) -> bool:
    """Remove a named server of which nothing is left. Whether it is; True as well for the default server."""
    name = key[1]
    if name not in user.orm_spawners:  # its client has removed it meanwhile
        return True
    spawner = user.spawners[name]
    if spawner.active or not leases.has_lapsed(key):
        return False
    if name == "":
        return True
    if spawner.leftover_targets:
        return False
    await user._delete_spawner(spawner)
    if spawner.active or user.spawners.get(name) is not spawner or name not in user.orm_spawners:
        return False  # it was started anew, or removed, meanwhile
    app.db.delete(spawner.orm_spawner)
    user.spawners.pop(name)
    app.db.commit()
    return True
