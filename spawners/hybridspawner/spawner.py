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
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from html import escape
from pathlib import Path
from typing import Any, cast

from jupyterhub import orm
from jupyterhub.spawner import Spawner, SpawnException
from jupyterhub.utils import maybe_future, url_path_join
from sqlalchemy import inspect
from traitlets import Float, Unicode

from . import metrics
from .adoption import adopt
from .deployment import Deployment, deployment_of
from .diagnose import StartFailed
from .events import EventLog
from .form import render_form
from .lease import Key, lease_of
from .leftovers import Leftovers
from .metrics import NO_REASON, Outcome
from .placement import Placement
from .request import InvalidRequest, SpawnRequest, normalise_form, validate
from .session import State, mark_of, new_mark
from .start import Start
from .targets.base import CUSTOMISED, HANDED_OVER, Launch, SessionSpawner
from .turnstile import Turn

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

    events: EventLog | None = None
    """The progress of the start that runs or ran last."""
    failure: StartFailed | None = None
    """Why the last start failed."""
    starting: Start | None = None
    last_end: dict[str, Any] | None = None
    """Why the last session ended by itself: what, why, remedy, evidence, at (seconds since 1970)."""
    _child: SessionSpawner | None = None
    _target = ""
    _turn: Turn | None = None

    def __init__(self, **kwargs: Any) -> None:
        self._children_state: dict[str, dict[str, Any]] = {}
        self._token_id: int | None = None
        self._ended = True  # whether the end of the last session is proved
        self._stopping = False  # whether its end is wanted
        self._served = False  # whether it was usable once, so that its end is no failure of a start
        self._leftovers = Leftovers(self._build_child, self._commit_leftovers)
        super().__init__(**kwargs)
        # a copy: hooks and group_overrides change dictionaries in place
        self._as_configured = copy.deepcopy({name: getattr(self, name) for name in CUSTOMISED})
        self.options_form = render_form
        self.options_from_form = normalise_form
        self._token_scopes: Any = cast(Any, self).server_token_scopes
        self.server_token_scopes = self._scopes_in_turn
        if cast(Any, self).apply_user_options is None:  # a site's own hook may call apply_request itself
            self.apply_user_options = HybridSpawner.apply_request
        metrics.track(self)

    @property
    def deployment(self) -> Deployment:
        return deployment_of(self.hub, self.hub_connect_url, Path(self.site_file), Path(self.state_dir))

    @property
    def user_groups(self) -> set[str]:
        return {group.name for group in self.user.groups}

    @property
    def username(self) -> str:
        return str(self.user.name)

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
        spawner._begin_lease()
        spawner._allow_time([target.name for target in spawner.deployment.site.targets])

    _request: SpawnRequest | None = None

    def _allow_time(self, targets: list[str]) -> None:
        """Set JupyterHub's deadline behind our own (queue, call-back, first answer), which say what was missing."""
        site = self.deployment.site
        each = [site.target(name).start_timeout + self.answer_timeout for name in targets]
        self.start_timeout = round(max(each) if site.policy.fallback == "never" else sum(each)) + 600

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
        if self._stopping:
            state["stopping"] = True
        if self.last_end is not None:
            state.update(version=STATE_VERSION, last_end=self.last_end)
        if self._leftovers:
            state.update(version=STATE_VERSION, leftovers=self._leftovers.to_json())
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        if state.get("version") != STATE_VERSION:
            return
        self._target = str(state.get("target", ""))
        self._children_state = {str(k): dict(v) for k, v in dict(state.get("children", {})).items()}
        self._token_id = state.get("token_id")
        self.last_end = state.get("last_end") if isinstance(state.get("last_end"), dict) else None
        self._ended, self._served = not self._target, bool(self._target)
        self._leftovers.load(state.get("leftovers", []))
        if self._target and state.get("stopping"):  # the hub was killed while it stopped this session
            self._leftovers.add(self._target, self._children_state.get(self._target, {}))
            self._target, self._ended = "", True
        self._leftovers.reap_soon()

    def clear_state(self) -> None:
        super().clear_state()
        try:
            self._existing_child()
        except Exception as error:  # its target cannot be reached at all; what is on record is enough to end it later
            self.log.warning("Cannot load what %s has on %s: %s", self._log_name, self._target, error)
        if self._target and not self._ended:
            child = cast(Spawner, self._child) if self._child is not None else None
            self._leftovers.add(self._target, child.get_state() if child else self._children_state[self._target])
        self._drop_child()
        self._revoke_token()

    def _drop_child(self) -> None:
        """Forget the session, but not what outlives one, e.g. the name of its volume."""
        if self._child is not None:
            child: Any = self._child
            child.on_change = lambda: None  # what it still hears of is no longer this session's state
            child.clear_state()
            self._children_state[self._target] = child.get_state()
        self._child, self._target, self._ended, self._stopping = None, "", True, False

    def _commit(self) -> None:
        """Write the state to the database now: a hub that is killed in the next instant finds its session again."""
        self.orm_spawner.state = self.get_state()
        inspect(self.orm_spawner).session.commit()

    def _commit_leftovers(self) -> None:
        """Write only what is left over: this object may already have been replaced, with a new session, by another."""
        state = dict(self.orm_spawner.state or {})
        state["leftovers"] = self._leftovers.to_json()
        self.orm_spawner.state = state
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
        child.progress_log = self.events
        target.prepare(child, launch)
        if launch is not None and launch.request.notebook:
            child.default_url = launch.request.start_page
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

    def _scopes_in_turn(self, _: Spawner) -> Awaitable[Any]:
        """The configured scopes of the server's token, once it is this start's turn.

        JupyterHub asks for them first, before it writes anything but the server's name: a start that waits here can be
        followed and cancelled.
        """
        # not in the coroutine, which begins later: what is not committed by then, another request's end rolls back
        inspect(self.orm_spawner).session.commit()
        self.failure, self.last_end, self._served = None, None, False
        self.events = events = EventLog()
        self._begin_lease()
        if self._spawn_future is not None:  # it may end before start() begins: cancelled, or refused by a hook
            self._spawn_future.add_done_callback(lambda _: events.close())
        events.append("Waiting for the starts before this one", 1)
        return self._turn_and_scopes()

    async def _turn_and_scopes(self) -> Any:
        self._turn = turn = await self.deployment.turnstile.turn()
        if self._spawn_future is not None:  # a request that is refused never gets to start()
            self._spawn_future.add_done_callback(lambda _: turn.over())
        scopes: Any = self._token_scopes
        return await maybe_future(scopes(self)) if callable(scopes) else scopes

    async def start(self) -> str:
        assert self._request is not None and self.events is not None  # the hooks of JupyterHub have run
        if self._turn is not None:
            self._turn.booked()
        request, events, began = self._request, self.events, time.monotonic()
        self.starting = Start(self, request, events)
        outcome, reason = Outcome.FAILED, "fault"
        try:
            url = await self.starting.run()
            outcome, reason, self._served = Outcome.READY, NO_REASON, True
            return url
        except StartFailed as failure:
            reason, self.failure = failure.reason, failure
            self.log.warning("%s: %s", self._log_name, failure)
            events.append(f"{failure.what} {failure.why}", detail=failure.remedy)
            raise Refused.of(failure) from None
        except asyncio.CancelledError:
            outcome, reason = Outcome.CANCELLED, NO_REASON
            raise
        except Exception as error:
            self.log.exception("Fault while starting %s", self._log_name)
            what = "The session could not be started because of a fault in the hub."
            message = f"{what} Try again, and tell the site's support: {type(error).__name__}."
            raise Refused(message, reason="fault", status_code=500) from error
        finally:
            self.starting = None
            events.close()
            queued, seconds = getattr(self._child, "queue_seconds", 0.0), time.monotonic() - began
            metrics.start_ended(self._target, request.profile, outcome, reason, seconds=seconds, queued=queued)

    async def begin(self, placement: Placement, request: SpawnRequest) -> SessionSpawner:
        """A child on the placement's target, on record from now on (`start.Host`)."""
        self.log.info("%s goes to %s", self._log_name, placement.reason)
        token = orm.APIToken.find(inspect(self.orm_spawner).session, self.api_token)
        self._token_id = token.id if token is not None else None
        if placement.target in self.leftover_targets and self.events is not None:
            self.events.append("Making sure that your last session there has ended", 4)
        await self._leftovers.reap(placement.target)
        child = self._build_child(
            placement.target,
            self._children_state.get(placement.target, {}),
            self.deployment.launch(request, placement.target, self.user_groups),
        )
        child.mark, child.on_change = new_mark(self.deployment.hub_name), self._commit
        child.gate = self._hand_over(placement.target)
        self._target, self._child, self._ended = placement.target, child, False
        self.deployment.board.started(placement.target)
        return child

    @asynccontextmanager
    async def _hand_over(self, target: str) -> AsyncIterator[None]:
        """Hold one of the target's places for starts, and this start's turn, while the target takes the session."""
        try:
            async with self.deployment.gates[target]:
                yield
        finally:
            if self._turn is not None:
                self._turn.over()

    async def leave(self) -> None:
        """End what `begin` began and prove it gone (`start.Host`)."""
        if self._child is None:  # nothing was begun
            return
        if not await self._child.stop_session(True):
            title = self.deployment.site.target(self._target).title
            what, why = f"The session could not leave {title}.", f"{title} does not confirm that nothing is left there."
            raise StartFailed(what, why, "Try again in some minutes.", reason="leftover")
        self._ended = True
        self._drop_child()
        self._commit()

    def address(self, url: str) -> str:
        return url_path_join(url, self.server.base_url if self.server else "/")

    async def poll(self) -> int | None:
        try:
            child = self._existing_child()
            if child is None:
                return None if self.starting is not None else 0
            status: int | None = await cast(Spawner, child).poll()
            if status is not None and not self._ended and self._served:
                await self._remember_end(child)
            self._ended = status is not None
            return status
        except Exception:
            # not knowing is not an end: the hub would forget a session that may still run
            self.log.exception("Cannot tell whether %s runs; it is kept", self._log_name)
            return None

    async def _remember_end(self, child: SessionSpawner) -> None:
        """Keep why a running session ended by itself, for the page on which its user starts the next one."""
        why = await child.ended()
        if why is not None:
            title = self.deployment.site.target(self._target).title
            told = {"what": f"Your last session on {title} has ended.", "why": why.why, "remedy": why.remedy}
            self.last_end = {**told, "evidence": why.evidence, "at": time.time()}
            self.log.warning("%s on %s ended by itself: %s %s", self._log_name, self._target, why.why, why.evidence)

    async def stop(self, now: bool = False) -> None:
        child = self._existing_child()
        if child is None:
            return
        self._stopping = True
        self._commit()  # a hub that is killed now goes on with it
        began, proved = time.monotonic(), False
        try:
            proved = await child.stop_session(now)
        finally:
            metrics.stop_ended(self._target, proved=proved, seconds=time.monotonic() - began)
        if not proved:
            raise RuntimeError(
                f"The end of {self._log_name} on {self._target} is not proved yet; the hub goes on trying"
            )
        self._ended = True
        self.deployment.board.ended(self._target)

    def _revoke_token(self) -> None:
        """Delete the API token of the session that is over.

        JupyterHub does so by the token's text, which it no longer has after a restart.
        """
        if self._token_id is None:
            return
        session = inspect(self.orm_spawner).session
        token = session.get(orm.APIToken, self._token_id)
        if token is not None and token.user is self.orm_spawner.user:
            session.delete(token)
            session.commit()
        self._token_id = None

    # --- after a restart of the hub ----------------------------------------------------------------------------------

    async def get_url(self) -> str:
        """The server's address now; waits for a session that is still queued. Never raises."""
        recorded: str = self.server.url
        try:
            child = self._existing_child()
            return (await adopt(self, child) if child is not None else None) or recorded
        except Exception as error:
            self.log.warning("Cannot tell where %s is now (%s); its last address is used", self._log_name, error)
            return recorded

    def failed_to_start(self, failure: StartFailed, shown: asyncio.Future[None]) -> None:
        """Keep why a start failed, and let the pages of JupyterHub that look at `shown` say so."""
        self.failure = failure
        if not shown.done():
            shown.set_exception(Refused.of(failure))
            shown.exception()  # looked at: nobody else has to

    def end_leftovers(self) -> None:
        """End what is on record of a session that JupyterHub does not know as running (its hub was killed)."""
        if self._target and self.server is None and self.starting is None and not self.pending:
            self._existing_child()
            self.clear_state()
            self._commit()
        self._leftovers.reap_soon()

    @property
    def marks(self) -> set[str]:
        """The marks of everything on record, for whoever looks for strays."""
        children = [self._children_state.get(self._target, {}), *(state for _, state in self._leftovers.to_json())]
        return {mark for child in children if (mark := mark_of(child))} | ({self._child.mark} if self._child else set())

    # --- the lease of an unattended session ---------------------------------------------------------------------------

    @property
    def lease(self) -> int | None:
        """Seconds for which the session goes on without a renewal; None if it needs none."""
        return lease_of(self.user_options)

    @property
    def lease_key(self) -> Key:
        return self.user.id, self.name

    def _begin_lease(self) -> None:
        self.deployment.leases.begin(self.lease_key, self.lease)

    def lease_lapsed(self) -> None:
        """Say why the session is going to end."""
        why = f"Nobody renewed the lease of {self.lease} s"
        self.log.warning("%s on %s ends: %s", self._log_name, self._target or "no target yet", why)
        if self.events is not None:
            self.events.append(why, detail="The session is ended.")
        told = {"what": "Your last session has ended.", "why": f"{why}.", "remedy": "Start it again."}
        self.last_end = {**told, "evidence": "", "at": time.time()}
        metrics.lease_lapsed(self._target)

    # --- what metrics count ------------------------------------------------------------------------------------------

    @property
    def counted_as(self) -> tuple[str, State] | None:
        if not self._target:
            return None
        if self.deployment.targets[self._target].silent_for() is not None:
            return self._target, State.UNKNOWN
        if self._child is not None and self._child.waiting:
            return self._target, State.QUEUED
        return self._target, State.STARTING if self.starting is not None else State.RUNNING

    @property
    def leftover_targets(self) -> list[str]:
        return [str(target) for target, _ in self._leftovers.to_json()]

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        while self.events is None:  # the hooks before start() still run
            await asyncio.sleep(0.1)
        async for event in self.events.follow():
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
