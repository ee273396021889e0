"""HybridSpawner: JupyterHub's spawner contract over a site's targets, and nothing else.

A request is validated in `apply_user_options` (so form, link, REST and stored options are treated alike), placed when
`start()` runs, and carried out by one child, an ordinary spawner of the chosen target. What this class promises:

- state is committed at every change while a start is under way, not only after it (JupyterHub does that at the end);
- `poll()` says "ended" only on proof; an error of a scheduler or of our own says "running";
- a start that is cancelled ends at once, and `stop()` then proves the end of what it had begun;
- what could not be proved ended stays in the state as a leftover and is ended later;
- `get_url()` never raises, so one unreachable session cannot stop a hub from starting.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator
from html import escape
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

import aiohttp
from jupyterhub import orm
from jupyterhub.spawner import Spawner, SpawnException
from jupyterhub.utils import url_path_join
from sqlalchemy import inspect
from traitlets import Float, Unicode

from .callback import CALLBACK_PATH
from .deployment import Deployment, deployment
from .diagnose import StartFailed
from .diagnose.process import not_reachable
from .events import EventLog
from .form import render_form
from .placement import NoTarget
from .request import AUTO, InvalidRequest, SpawnRequest, normalise_form, validate
from .session import new_mark
from .targets.base import CUSTOMISED, HANDED_OVER, Launch, SessionSpawner

STATE_VERSION = 1


class Refused(SpawnException):
    """A start that is refused or failed, as JupyterHub shows it: text for REST, HTML with folded evidence for pages."""

    def __init__(self, message: str, *, reason: str, status_code: int, evidence: str = "") -> None:
        super().__init__(message, reason=reason, status_code=status_code)
        self.jupyterhub_message = f"{message}\n\n{evidence}" if evidence else message
        folded = f"<details><summary>Details</summary><pre>{escape(evidence)}</pre></details>" if evidence else ""
        self.jupyterhub_html_message = escape(message) + folded

    @classmethod
    def of(cls, failure: StartFailed) -> Refused:
        message = f"{failure.what} {failure.why} {failure.remedy}"
        return cls(message, reason=failure.reason, status_code=503, evidence=failure.evidence)


class HybridSpawner(Spawner):
    """One spawner over local processes, Slurm jobs and Kubernetes pods. Configure it with one site file."""

    site_file = Unicode(help="Path of the site file (sites/*.yaml).").tag(config=True)
    state_dir = Unicode("var", help="Directory of local sessions' homes and logs.").tag(config=True)
    answer_timeout = Float(
        120, help="Seconds that a started server may take to answer its first request (slow file systems)."
    ).tag(config=True)

    _child: SessionSpawner | None = None
    _target = ""
    _launch: Launch | None = None
    _events: EventLog | None = None
    _starting = False

    def __init__(self, **kwargs: Any) -> None:
        self._children_state: dict[str, dict[str, Any]] = {}
        self._token_id: int | None = None
        self._ended = True  # whether the end of the last session is proved
        self._leftovers: list[tuple[str, dict[str, Any]]] = []
        self._reaper: asyncio.Task[None] | None = None
        super().__init__(**kwargs)
        # a copy: hooks and group_overrides change dictionaries in place
        self._as_configured = copy.deepcopy({name: getattr(self, name) for name in CUSTOMISED})
        self.options_form = render_form
        self.options_from_form = normalise_form
        if cast(Any, self).apply_user_options is None:  # a site's own hook may call apply_request itself
            self.apply_user_options = HybridSpawner.apply_request

    @property
    def deployment(self) -> Deployment:
        hub = urlparse(self.hub.url)
        base = self.hub_connect_url or f"{hub.scheme}://{hub.netloc}"
        return deployment(Path(self.site_file), Path(self.state_dir), url_path_join(base, hub.path, CALLBACK_PATH))

    @property
    def user_groups(self) -> set[str]:
        return {group.name for group in self.user.groups}

    # --- what is asked for -------------------------------------------------------------------------------------------

    @staticmethod
    def apply_request(spawner: HybridSpawner, user_options: Any) -> None:
        """Validate, and set start_timeout, which JupyterHub reads before start() runs. 400 for what cannot be used."""
        try:
            request = validate(user_options, spawner.deployment.site, spawner.user_groups)
        except InvalidRequest as error:
            spawner.orm_spawner.user_options = None  # else a start without options would repeat the mistake
            raise Refused(str(error), reason="invalid_options", status_code=400) from None
        spawner._request = request
        spawner._allow_time([t.name for t in spawner.deployment.site.targets if request.target in (AUTO, t.name)])

    _request: SpawnRequest | None = None

    def _allow_time(self, targets: list[str]) -> None:
        """Set JupyterHub's deadline behind our own (queue, call-back, first answer), which say what was missing."""
        longest = max(self.deployment.site.target(name).start_timeout for name in targets)
        self.start_timeout = round(longest + self.answer_timeout) + 600

    # --- state -------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        state = super().get_state()
        if self._child is not None:
            self._children_state[self._target] = cast(Spawner, self._child).get_state()
        children = {name: child for name, child in self._children_state.items() if child}
        if self._target or children:
            state.update(version=STATE_VERSION, target=self._target, children=children)
        if self._token_id is not None:
            state["token_id"] = self._token_id
        if self._leftovers:
            state.update(version=STATE_VERSION, leftovers=[list(leftover) for leftover in self._leftovers])
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        if state.get("version") != STATE_VERSION:
            return
        self._target = str(state.get("target", ""))
        self._children_state = {str(k): dict(v) for k, v in dict(state.get("children", {})).items()}
        self._token_id = state.get("token_id")
        self._ended = not self._target
        self._leftovers = [(str(target), dict(child)) for target, child in state.get("leftovers", [])]
        self._reap_soon()

    def clear_state(self) -> None:
        super().clear_state()
        if self._child is not None:
            child = cast(Spawner, self._child)
            if not self._ended:
                self._leftovers.append((self._target, child.get_state()))
                self._reap_soon()
            self._ended = True
            child.clear_state()
            self._children_state[self._target] = (
                child.get_state()
            )  # what outlives a session, e.g. the name of its volume
        self._child, self._target, self._token_id = None, "", None

    def _commit(self) -> None:
        """Write the state to the database now: a hub that is killed in the next instant finds its session again."""
        self.orm_spawner.state = self.get_state()
        inspect(self.orm_spawner).session.commit()

    # --- the child ---------------------------------------------------------------------------------------------------

    def _build_child(self, target_name: str, state: dict[str, Any], launch: Launch | None = None) -> SessionSpawner:
        """A child on `target_name`, with its own configuration, the session's attributes, and its stored `state`."""
        target = self.deployment.targets[target_name]
        attributes = {name: getattr(self, name) for name in HANDED_OVER}
        child: Any = target.child_class()(config=self.config, user_options={}, **attributes)
        for name, configured in self._as_configured.items():
            value = getattr(self, name)
            if value != configured or name in self.config.HybridSpawner or name == "hub_connect_url":
                setattr(child, name, {**child.environment, **value} if name == "environment" else value)
        child.progress_log = self._events
        target.prepare(child, launch)
        if launch is not None and launch.request.notebook:
            child.default_url = "/lab/tree/" + launch.request.notebook
        child.load_state(state)
        return cast(SessionSpawner, child)

    def _existing_child(self) -> SessionSpawner | None:
        """The child of the session on record, built if this process has not done so. None if there is no session."""
        if self._child is None and self._target:
            self._child = self._build_child(self._target, self._children_state.get(self._target, {}))
            self._child.on_change = self._commit
            self._allow_time([self._target])
        return self._child

    # --- JupyterHub's contract ---------------------------------------------------------------------------------------

    async def start(self) -> str:
        assert self._request is not None  # apply_user_options has run
        self._starting = True
        self._events = events = EventLog()
        try:
            return await self._start(self._request, events)
        except StartFailed as failure:
            self.log.warning("%s: %s", self._log_name, failure)
            events.append(f"{failure.what} {failure.why}", detail=failure.remedy)
            raise Refused.of(failure) from None
        except Exception as error:
            self.log.exception("Fault while starting %s", self._log_name)
            what = "The session could not be started because of a fault in the hub."
            message = f"{what} Try again, and tell the site's support: {type(error).__name__}."
            raise Refused(message, reason="fault", status_code=500) from error
        finally:
            self._starting = False
            events.close()

    async def _start(self, request: SpawnRequest, events: EventLog) -> str:
        events.append("Looking for a place", 2)
        try:
            placement = await self.deployment.place(request, self.user_groups)
        except NoTarget as error:
            raise StartFailed(str(error), "", "Choose another profile.", reason="no_capacity") from None
        events.append(f"Target: {placement.reason}", 4)
        self.log.info("%s goes to %s", self._log_name, placement.reason)
        site = self.deployment.site
        realisation = site.environment(request.environment).targets[placement.target]
        launch = Launch(request, site.profile(request.profile).resources, realisation)
        token = orm.APIToken.find(inspect(self.orm_spawner).session, self.api_token)
        self._token_id = token.id if token is not None else None
        await self._reap(placement.target)
        child = self._build_child(placement.target, self._children_state.get(placement.target, {}), launch)
        child.mark, child.on_change = new_mark(self.deployment.hub_name), self._commit
        self._target, self._child, self._ended = placement.target, child, False
        self.deployment.board.forget(placement.target)
        url = await child.start_session()
        await self._until_answering(child, url)
        events.append("The server answers", 95)
        return url

    async def _until_answering(self, child: SessionSpawner, url: str) -> None:
        """Wait for the first HTTP answer; a session that ends meanwhile ends the start at once, with its diagnosis."""
        deadline = time.monotonic() + self.answer_timeout
        probe = url_path_join(url, self.server.base_url if self.server else "/", "api")
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5), trust_env=False) as http:
            while True:
                try:
                    async with http.get(probe, allow_redirects=False) as answer:
                        if answer.status < 500:
                            return
                except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
                    pass
                if (failure := await child.ended()) is not None:
                    raise failure
                if time.monotonic() > deadline:
                    raise not_reachable(url, self.answer_timeout, "")
                await asyncio.sleep(0.3)

    async def poll(self) -> int | None:
        try:
            child = self._existing_child()
            if child is None:
                return None if self._starting else 0
            status: int | None = await cast(Spawner, child).poll()
            self._ended = status is not None
            return status
        except Exception:
            # not knowing is not an end: the hub would forget a session that may still run
            self.log.exception("Cannot tell whether %s runs; it is kept", self._log_name)
            return None

    async def stop(self, now: bool = False) -> None:
        child = self._existing_child()
        if child is None:
            return
        if not await child.stop_session(now):
            raise RuntimeError(
                f"The end of {self._log_name} on {self._target} is not proved yet; the hub goes on trying"
            )
        self._ended = True
        self._revoke_token()
        self.deployment.board.forget(self._target)

    # --- what could not be proved ended ------------------------------------------------------------------------------

    def _reap_soon(self) -> None:
        if self._leftovers and (self._reaper is None or self._reaper.done()):
            self._reaper = asyncio.ensure_future(self._reap_until_done())

    async def _reap_until_done(self) -> None:
        pause = 10.0
        while self._leftovers:
            await asyncio.sleep(pause)
            pause = min(pause * 2, 600)
            for target in {target for target, _ in self._leftovers}:
                try:
                    await self._reap(target)
                except StartFailed as failure:
                    self.log.warning("%s: %s", self._log_name, failure)

    async def _reap(self, target: str) -> None:
        """End the leftovers on `target`. Raises StartFailed if one resists: a new session must not meet an old one."""
        for leftover in [entry for entry in self._leftovers if entry[0] == target]:
            try:
                gone = await asyncio.wait_for(self._build_child(*leftover).stop_session(True), 30)
            except Exception as error:
                self.log.warning("Cannot end what is left of %s on %s: %s", self._log_name, target, error)
                gone = False
            if not gone:
                what, why = "Your previous session there has not ended yet.", f"{target} does not confirm its end."
                raise StartFailed(what, why, "Try again in some minutes, or choose another target.", reason="leftover")
            if leftover in self._leftovers:
                self._leftovers.remove(leftover)
            self._commit()

    def _revoke_token(self) -> None:
        """Delete this session's API token. JupyterHub does so by its text, which it no longer has after a restart."""
        if self._token_id is None or self.api_token:
            return
        session = inspect(self.orm_spawner).session
        token = session.get(orm.APIToken, self._token_id)
        if token is not None and token.user is self.orm_spawner.user:
            session.delete(token)
            session.commit()

    async def get_url(self) -> str:
        recorded: str = self.server.url
        try:
            child = self._existing_child()
            if child is None or (url := await asyncio.wait_for(child.current_url(), self.start_timeout)) is None:
                return recorded
            await self._until_answering(child, url)
            return url_path_join(url, self.server.base_url)
        except Exception as error:
            self.log.warning("Cannot tell where %s is now (%s); its last address is used", self._log_name, error)
            return recorded

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        while self._events is None:  # the hooks before start() still run
            await asyncio.sleep(0.1)
        async for event in self._events.follow():
            yield event.as_progress()

    def session_called_back(self, port: int) -> bool:
        """A node announces the port of this session's server. False if no session waits for it."""
        child = self._existing_child()
        called_back = getattr(child, "called_back", None)
        return bool(called_back is not None and called_back(port))

    @property
    def token_id(self) -> int | None:
        """Database id of the session's API token: who calls back must hold this one."""
        return self._token_id

    async def delete_forever(self) -> None:
        """The user or named server is deleted: children on every target drop what they keep (volumes)."""
        for name in self.deployment.targets:
            if name in self._children_state:
                outcome = cast(Spawner, self._build_child(name, self._children_state[name])).delete_forever()
                if asyncio.iscoroutine(outcome):
                    await outcome
