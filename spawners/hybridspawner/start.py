"""One start: from a validated request to a server that answers, on the first choice or, by policy, on another.

While a session only waits for its scheduler, and another target could start it at once, the site's policy decides:
`never` waits on; `ask` offers the other target on the progress page, and moves when the user says so; `auto` moves by
itself after `longest_wait`, if the request left the choice to the hub. A move begins on the next target only after the
end of what was begun on the last one is proved: both would share one token and one address.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from jupyterhub.utils import url_path_join

from . import metrics
from .deployment import Deployment
from .diagnose import StartFailed
from .diagnose.process import not_reachable
from .duration import parse_duration, spoken_duration
from .events import EventLog
from .placement import NoTarget, Offer, Placement, next_target
from .request import AUTO, SpawnRequest
from .targets.base import SessionSpawner

MOVABLE = frozenset(
    {"backend_down", "cluster_full", "full", "no_capacity", "node_fail", "node_lost", "partition_down", "queue_timeout"}
    | {"quota", "unschedulable"}
)
"""Reasons of a failure that lie in the target, not in the request: another target may do better."""

LOOK_SECONDS = 5.0  # between two looks at the capacity board for another target, while waiting in a queue


class Host(Protocol):
    """What a start needs of the spawner that it runs for."""

    @property
    def deployment(self) -> Deployment: ...

    @property
    def user_groups(self) -> set[str]: ...

    @property
    def username(self) -> str: ...

    answer_timeout: float

    async def begin(self, placement: Placement, request: SpawnRequest) -> SessionSpawner:
        """A child on the placement's target, on record from now on. Raises StartFailed."""
        ...

    async def leave(self) -> None:
        """End what `begin` began and prove it gone. Raises StartFailed if that cannot be proved."""
        ...

    def address(self, url: str) -> str:
        """Where the server at `url` answers when it is up."""
        ...


@dataclass
class _Attempt:
    child: SessionSpawner
    placement: Placement
    began: float


class Start:
    """One start. `run` does it; `move` is the user's click on an offer."""

    def __init__(self, host: Host, request: SpawnRequest, events: EventLog) -> None:
        self._host, self._request, self._events = host, request, events
        self._policy = host.deployment.site.policy
        self._tried: list[str] = []
        self._attempt: _Attempt | None = None
        self._moved: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> str:
        """The server's URL. Raises StartFailed; ends at once when it is cancelled."""
        placement = await self._first_place()
        while True:
            self._tried.append(placement.target)
            try:
                with self._host.deployment.starting(placement.target):
                    outcome = await self._try(placement)
            except StartFailed as failure:
                other = await self._other() if self._by_itself and failure.reason in MOVABLE else None
                if other is None:
                    raise
                self._events.append(f"{failure.what} {failure.why}", detail=failure.evidence)
                outcome = other
            if isinstance(outcome, str):
                return outcome
            placement = await self._leave_for(placement, outcome)

    def move(self, target: str) -> str | None:
        """Go to `target` instead. None if that is done; else why it cannot be."""
        if self._attempt is None or not self._attempt.child.waiting:
            return "The session does not wait in a queue any more."
        if target not in {o.target for o in self._attempt.placement.offers} or target in self._tried:
            return f"{target!r} cannot run this session."
        if not self._moved.done():
            self._moved.set_result(target)
        return None

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _by_itself(self) -> bool:
        return self._policy.fallback == "auto" and self._request.target == AUTO

    async def _first_place(self) -> Placement:
        self._events.append("Looking for a place", 2)
        host = self._host
        try:
            return await host.deployment.place(self._request, host.user_groups, host.username)
        except NoTarget as error:
            raise StartFailed(str(error), "", "Choose another profile.", reason="no_capacity") from None

    async def _try(self, placement: Placement) -> str | Offer:
        """A URL, or the target to move to."""
        self._events.append(f"Target: {placement.reason}", 4)
        child = await self._host.begin(placement, self._request)
        self._attempt = _Attempt(child, placement, time.monotonic())
        carrying = asyncio.ensure_future(self._carry_out(child))
        leaving = asyncio.ensure_future(self._until_moved(self._attempt))
        try:
            await asyncio.wait({carrying, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if carrying.done() or not leaving.done():
                return await carrying
            if not child.waiting:  # it began just now
                return await carrying
            return leaving.result()
        finally:
            # not awaited: a start that is cancelled must end within the second that JupyterHub gives it
            for task in (carrying, leaving):
                task.cancel()
                task.add_done_callback(_retrieve)

    async def _carry_out(self, child: SessionSpawner) -> str:
        url = await child.start_session()
        await until_answering(child, url, self._host.address(url), self._host.answer_timeout)
        self._events.append("The server answers", 95)
        return url

    async def _until_moved(self, attempt: _Attempt) -> Offer:
        """Wait for the user's click, or for the policy's moment."""
        offered: Offer | None = None
        longest = parse_duration(self._policy.longest_wait)
        self._moved = asyncio.get_running_loop().create_future()
        while True:
            done, _ = await asyncio.wait({self._moved}, timeout=LOOK_SECONDS)
            if done:
                wanted = self._moved.result()
                return next(o for o in attempt.placement.offers if o.target == wanted)
            if self._policy.fallback == "never" or not attempt.child.waiting:
                continue
            other = await self._other()
            if other is None or other.starts_in != 0:
                continue
            if self._by_itself:
                if time.monotonic() - attempt.began >= longest:
                    return other
                words = f"It moves there if it still waits after {spoken_duration(longest)}."
                self._events.append(f"{other.title} could start it now ({other.words})", detail=words)
            elif offered is None or offered.target != other.target:
                offered = other
                self._events.append(
                    f"{other.title} could start it now ({other.words})",
                    offer={"target": other.target, "title": other.title},
                )

    async def _other(self) -> Offer | None:
        deployment, groups = self._host.deployment, self._host.user_groups
        capacities = await deployment.capacities(self._request, groups, self._host.username)
        return next_target(self._request, deployment.site, capacities, groups, self._tried)

    async def _leave_for(self, placement: Placement, other: Offer) -> Placement:
        before, title = placement.target, self._host.deployment.site.target(placement.target).title
        self._events.append(f"Leaving {title} for {other.title}", detail="It starts there once this one is gone.")
        await self._host.leave()
        metrics.start_ended(before, self._request.profile, metrics.Outcome.MOVED)
        metrics.moved(before, other.target)
        self._events.append(f"{title} confirms that nothing is left there")
        return Placement(other.target, f"{other.title} ({other.words}), instead of {title}", placement.offers)


async def until_answering(child: SessionSpawner, url: str, probe: str, patience: float) -> None:
    """Wait for the first HTTP answer; a session that ends meanwhile ends the start at once, with its diagnosis."""
    deadline = time.monotonic() + patience
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5), trust_env=False) as http:
        asking = asyncio.ensure_future(_answers(http, url_path_join(probe, "api")))
        try:
            while True:
                # not one after the other: a node that has vanished answers neither yes nor no for seconds
                await asyncio.wait({asking}, timeout=0.3)
                if asking.done():
                    if asking.result():
                        return
                    asking = asyncio.ensure_future(_answers(http, url_path_join(probe, "api"), 0.3))
                if (failure := await child.ended()) is not None:
                    raise failure
                if time.monotonic() > deadline:
                    raise not_reachable(url, patience, await child.log_tail())
        finally:
            asking.cancel()


async def _answers(http: aiohttp.ClientSession, url: str, pause: float = 0) -> bool:
    """Whether a server answers at `url`, with anything but a fault; asked after `pause` seconds."""
    await asyncio.sleep(pause)
    try:
        async with http.get(url, allow_redirects=False) as answer:
            return answer.status < 500
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
        return False


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Look at a task's end, so that asyncio does not report it as forgotten."""
    if not task.cancelled():
        task.exception()
