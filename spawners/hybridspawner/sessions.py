"""The hub's handlers of one session: its progress, a cancel that works at any moment, a move to another target.

JupyterHub has its own for the first two, and they stay. These also work while a session of before a restart of the hub
is looked for, and while a start that failed is still being cleaned up, when JupyterHub answers 400 and 500.

    GET    hub/api/hybridspawner/sessions/USER[/SERVER]    events, as a stream; the last has `ready` or `failed`
    DELETE hub/api/hybridspawner/sessions/USER[/SERVER]    cancel or stop; 204 when done, 202 while it goes on
    POST   hub/api/hybridspawner/sessions/USER[/SERVER]    {"target": NAME}: wait there instead
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.utils import url_escape_path, url_path_join
from tornado import web
from tornado.iostream import StreamClosedError

from .diagnose import StartFailed
from .server_api import end
from .spawner import HybridSpawner, Refused

SESSIONS_PATH = "api/hybridspawner/sessions"
TARGETS_PATH = "api/hybridspawner/targets"
SESSIONS_ROUTES = (rf"/{SESSIONS_PATH}/([^/]+)", rf"/{SESSIONS_PATH}/([^/]+)/([^/]*)")
KEEPALIVE = 8.0  # seconds between two signs of life, so that proxies keep the stream open


def failed_event(failure: StartFailed | None, message: str = "") -> dict[str, Any]:
    """The last event of a start that failed: a sentence, and its parts for a page that shows them apart."""
    if failure is None:
        return {"progress": 100, "failed": True, "message": message}
    refused = Refused.of(failure)
    parts = {"what": failure.what, "why": failure.why, "remedy": failure.remedy, "evidence": failure.evidence}
    return {
        "progress": 100,
        "failed": True,
        "message": f"{failure.what} {failure.why} {failure.remedy}",
        "html_message": refused.jupyterhub_html_message,
        "reason": failure.reason,
        **parts,
    }


def ended_event(told: dict[str, Any]) -> dict[str, Any]:
    """The last event of a session that ended by itself after it was ready, as `HybridSpawner.last_end` has it."""
    parts = {name: str(told.get(name) or "") for name in ("what", "why", "remedy", "evidence")}
    message = f"{parts['what']} {parts['why']} {parts['remedy']}"
    return {"progress": 100, "failed": True, "ended": True, "message": message, **parts}


class SessionHandler(APIHandler):
    """See the module."""

    def _session(self, user_name: str, server_name: str) -> tuple[Any, HybridSpawner]:
        user = self.find_user(user_name)
        if user is None or server_name not in user.spawners:
            raise web.HTTPError(404, "No such session")
        spawner = user.spawners[server_name]
        if not isinstance(spawner, HybridSpawner):
            raise web.HTTPError(404, "No such session")
        return user, spawner

    # --- progress ----------------------------------------------------------------------------------------------------

    @needs_scope("read:servers")
    async def get(self, user_name: str, server_name: str = "") -> None:
        known = self.find_user(user_name)
        if known is not None and server_name in known.orm_spawners:
            known.get_spawner(server_name)  # one that has ended is on record only; it still tells how
        user, spawner = self._session(user_name, server_name)
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-cache")
        self._alive = asyncio.ensure_future(self._stay_alive())
        try:
            await self._tell(user, spawner)
        except StreamClosedError:
            pass

    def on_finish(self) -> None:
        if (alive := getattr(self, "_alive", None)) is not None:
            alive.cancel()
        super().on_finish()

    async def _stay_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEPALIVE)
            try:
                self.write("\n\n")
                await self.flush()
            except (StreamClosedError, RuntimeError):
                return

    async def _tell(self, user: Any, spawner: HybridSpawner) -> None:
        told = None
        while spawner.pending in ("spawn", "check", "stop") and not spawner.ready:
            events = spawner.events
            if spawner.pending != "stop" and events is not None and events is not told:
                told = events
                async for event in events.follow():
                    await self._send(event.as_progress())
            await asyncio.sleep(0.1)
        # a session that was stopped is a new object of JupyterHub's the next time; what this one knows is its end
        if spawner.ready:
            url = url_path_join(user.url, url_escape_path(spawner.name), "/")
            await self._send({"progress": 100, "ready": True, "message": f"Server ready at {url}", "url": url})
        elif spawner.failure is None and spawner.last_end is not None:
            await self._send(ended_event(spawner.last_end))
        else:
            await self._send(failed_event(spawner.failure, self._why(spawner)))

    @staticmethod
    def _why(spawner: HybridSpawner) -> str:
        future = spawner._spawn_future
        if future is not None and future.done() and not future.cancelled() and (error := future.exception()):
            return str(getattr(error, "jupyterhub_message", "") or "The session could not be started.")
        if spawner.events is not None and spawner.last_end is not None:  # since this start: it forgets earlier ones
            return str(spawner.last_end["why"])
        return "The start was cancelled." if spawner.events is not None else "The session is not starting."

    async def _send(self, event: dict[str, Any]) -> None:
        self.write(f"data: {json.dumps(event)}\n\n")
        await self.flush()

    # --- cancel, stop ------------------------------------------------------------------------------------------------

    @needs_scope("delete:servers")
    async def delete(self, user_name: str, server_name: str = "") -> None:
        user, spawner = self._session(user_name, server_name)
        if await end(self.stop_single_user, user, spawner.name) and spawner.ready:
            await self.stop_single_user(user, spawner.name)
        self.set_status(202 if spawner.pending else 204)

    # --- move --------------------------------------------------------------------------------------------------------

    @needs_scope("servers")
    async def post(self, user_name: str, server_name: str = "") -> None:
        _, spawner = self._session(user_name, server_name)
        body = self.get_json_body()
        target = body.get("target") if isinstance(body, dict) and set(body) == {"target"} else None
        names = [t.name for t in spawner.deployment.site.targets]
        if not isinstance(target, str) or target not in names:
            raise web.HTTPError(400, f'target: must be text. Allowed: {{"target": one of {", ".join(names)}}}')
        if spawner.starting is None:
            raise web.HTTPError(409, "The session is not starting.")
        if problem := spawner.starting.move(target):
            raise web.HTTPError(409, problem)
        self.set_status(202)


class TargetsHandler(APIHandler):
    """GET hub/api/hybridspawner/targets: which targets answer. Told from memory; no target is asked."""

    @web.authenticated
    async def get(self) -> None:
        user = self.current_user
        if user is None or getattr(user, "spawner", None) is None:
            raise web.HTTPError(403, "Only users may ask")
        deployment = user.spawner.deployment
        silent = deployment.silent()
        told = [
            {"target": spec.name, "title": spec.title, "silent_for": silent[spec.name]}
            for spec in deployment.site.targets
        ]
        self.set_header("Cache-Control", "no-store")
        self.write(json.dumps(told))
