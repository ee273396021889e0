"""JupyterHub's own handlers of starting and stopping, without the faults they answer in three cases.

JupyterHub 6.1 answers 500 to a request to start that is still open when the start is cancelled, to a cancel that takes
longer than a second to take effect, and to a second cancel while the first one is at work. These handlers take the
place of the originals, do what they do, and answer 409 to the first and 202 to the others (docs/decisions/0010).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from jupyterhub import apihandlers, handlers
from jupyterhub.apihandlers.users import UserServerAPIHandler
from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.scopes import needs_scope
from tornado import web

PATIENCE = 8.0  # seconds that a cancel waits for its effect before it answers 202


class ServerHandler(UserServerAPIHandler):
    """`/hub/api/users/NAME/server[s/SERVER]`."""

    async def post(self, user_name: str, server_name: str = "") -> None:
        try:
            await super().post(user_name, server_name)
        except asyncio.CancelledError:
            _raise_if_ours()
            raise web.HTTPError(409, "The start was cancelled.") from None

    async def spawn_single_user(
        self, user: Any, server_name: str = "", display_name: str | None = None, options: Any = None
    ) -> None:
        """JupyterHub's, which takes notice of the options only when it is this start's turn: its lease is earlier."""
        if options is not None and (spawner := user.spawners.get(server_name)) is not None:
            spawner.user_options = options
        await super().spawn_single_user(user, server_name, display_name, options=options)

    @needs_scope("delete:servers")
    async def delete(self, user_name: str, server_name: str = "") -> None:
        user = self.find_user(user_name)
        known = user is not None and (not server_name or server_name in user.orm_spawners)
        if known and not await end(self.stop_single_user, user, server_name):
            self.set_status(202)
            return
        await super().delete(user_name, server_name)


class SpawnPage(SpawnHandler):
    """`/hub/spawn[/NAME[/SERVER]]`: a start that is cancelled from elsewhere leads home instead of to a fault."""

    async def get(self, *path: Any, **names: Any) -> None:
        await self._unless_cancelled(super().get(*path, **names))

    async def post(self, *path: Any, **names: Any) -> None:
        await self._unless_cancelled(super().post(*path, **names))

    async def _unless_cancelled(self, answering: Any) -> None:
        try:
            await answering
        except asyncio.CancelledError:
            _raise_if_ours()
            self.redirect(self.hub.base_url + "home")


async def end(stop: Callable[[Any, str], Awaitable[Any]], user: Any, server_name: str) -> bool:
    """Cancel the start or adoption of a session and `stop` it. False if that goes on for longer than PATIENCE.

    Nothing is done, and the answer is True, if the session neither starts nor is looked for.
    """
    spawner = user.spawners[server_name]
    if spawner.pending not in ("spawn", "check"):
        return True
    deadline = time.monotonic() + PATIENCE
    while spawner.pending in ("spawn", "check"):
        if (start := spawner._spawn_future) is not None:
            start.cancel()
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    if spawner.pending is None and spawner.server is not None:
        await stop(user, server_name)
    return spawner.pending is None


def _raise_if_ours() -> None:
    """Let a CancelledError pass if it is this request's own task that is cancelled: the hub ends."""
    task = asyncio.current_task()
    if task is not None and getattr(task, "cancelling", lambda: 0)():
        raise


def install() -> None:
    """Put these handlers in the places of the originals, for the hub that this process is going to be."""
    for listed, original, ours in (
        (apihandlers.default_handlers, UserServerAPIHandler, ServerHandler),
        (handlers.default_handlers, SpawnHandler, SpawnPage),
    ):
        listed[:] = [(route[0], ours, *route[2:]) if route[1] is original else route for route in listed]
