"""A site at work: its targets and their capacity readings, one of each per hub process, shared by all spawners."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from jupyterhub.utils import url_path_join

from . import metrics
from .callback import CALLBACK_PATH
from .capacity import Access, Capacity, CapacityBoard, Estimate, Fit
from .diagnose import StartFailed
from .estimate import EstimateBoard, Question
from .lease import Leases
from .placement import Placement, offers_for, place
from .request import AUTO, SpawnRequest, account_of, candidates, open_to, partition_of
from .session import new_hub_name
from .site import LocalTarget, Site, SlurmTarget, load_site
from .targets.base import Launch, Target
from .turnstile import Turnstile

log = logging.getLogger(__name__)

ACCESS_PATIENCE = 3.0
"""Seconds that a page waits for what a user may use; afterwards nothing is ruled out."""


class Deployment:
    """The targets of `site`. `callback_url` is where nodes announce their port; `state_dir` holds homes and logs."""

    def __init__(self, site: Site, state_dir: Path, callback_url: str) -> None:
        self.site = site
        self.hub_name = _hub_name(state_dir)
        site_dir = site.path.parent if site.path else Path.cwd()
        self.targets: dict[str, Target] = {}
        for spec in site.targets:
            # imported here: a site needs only what its own targets need
            if isinstance(spec, LocalTarget):
                from .targets.local import Local

                self.targets[spec.name] = Local(spec, state_dir, site_dir)
            elif isinstance(spec, SlurmTarget):
                from .targets.slurm import Slurm

                self.targets[spec.name] = Slurm(spec, callback_url)
            else:
                from .targets.kubernetes import Kubernetes

                self.targets[spec.name] = Kubernetes(spec)
        self.turnstile = Turnstile()
        self.gates = {spec.name: asyncio.Semaphore(spec.starts_at_a_time) for spec in site.targets}
        self.pending = Counter[str]()
        """Sessions that wait or start, by target."""
        self.board = CapacityBoard({name: target.read for name, target in self.targets.items()})
        self.estimates = EstimateBoard()
        self.leases = Leases()
        self._asking: dict[tuple[str, str], asyncio.Task[Access]] = {}

    @contextmanager
    def starting(self, target: str) -> Iterator[None]:
        """Count one start on `target` for as long as it lasts. Raises StartFailed when the site allows no more."""
        spec = self.site.target(target)
        if spec.max_waiting is not None and self.pending[target] >= spec.max_waiting:
            what = f"{spec.title} takes no more sessions at the moment."
            why = f"{self.pending[target]} sessions already wait or start there, as many as the site allows."
            raise StartFailed(what, why, "Choose another target, or try again in some minutes.", reason="full")
        self.pending[target] += 1
        try:
            yield
        finally:
            self.pending[target] -= 1

    async def capacities(self, request: SpawnRequest, user_groups: set[str], username: str = "") -> dict[str, Capacity]:
        """What is known for `request` of each target that it may go to, without asking for estimates."""
        profile, environment = self.site.profile(request.profile), self.site.environment(request.environment)
        names = candidates(self.site, profile, environment, user_groups)
        readings, rights = await asyncio.gather(
            self.board.read_all(names), asyncio.gather(*(self._access(name, username) for name in names))
        )
        return {
            name: replace(readings[name], access=access, waiting=self.pending[name])
            for name, access in zip(names, rights, strict=True)
        }

    async def outlook(self, request: SpawnRequest, user_groups: set[str], username: str) -> dict[str, Capacity]:
        """capacities(), and the scheduler's estimate wherever the session could not start now but later."""
        capacities = await self.capacities(request, user_groups, username)
        offers = offers_for(request, self.site, capacities, user_groups)
        waits = [o.target for o in offers if o.fit is Fit.LATER]
        estimates = await asyncio.gather(*(self._estimate(t, request, username, capacities[t].access) for t in waits))
        return capacities | {t: replace(capacities[t], estimate=e) for t, e in zip(waits, estimates, strict=True)}

    async def place(self, request: SpawnRequest, user_groups: set[str], username: str = "") -> Placement:
        """place() over fresh readings. Raises NoTarget. A scheduler is only asked when the choice depends on it."""
        capacities = await self.capacities(request, user_groups, username)
        if request.target == AUTO and username:
            offers = offers_for(request, self.site, capacities, user_groups)
            if len(offers) > 1 and not any(o.fit is Fit.NOW for o in offers):
                capacities = await self.outlook(request, user_groups, username)
        return place(request, self.site, capacities, user_groups)

    def silent(self) -> dict[str, float | None]:
        """For each target, the seconds since it stopped to answer about sessions; None while it answers."""
        return {name: target.silent_for() for name, target in self.targets.items()}

    def launch(self, request: SpawnRequest, target: str, user_groups: Collection[str] = ()) -> Launch:
        """`request` with what the site file says about it on `target`, for a user of these groups."""
        realisation = self.site.environment(request.environment).targets[target]
        endpoints = tuple(each for each in self.site.endpoints if open_to(each.groups, user_groups))
        return Launch(request, self.site.profile(request.profile).resources, realisation, endpoints)

    async def _access(self, target: str, username: str) -> Access:
        """What the user may use, if the target says so in time; a late answer is there for the next look."""
        if not username:
            return Access()
        task = self._asking.get((target, username))
        if task is None:
            task = asyncio.create_task(self.targets[target].access(username))
            self._asking[target, username] = task
            task.add_done_callback(lambda _: self._asking.pop((target, username), None))
            task.add_done_callback(_retrieve)
        await asyncio.wait({task}, timeout=ACCESS_PATIENCE)
        if not task.done():
            return Access()
        try:
            return task.result()
        except Exception as error:
            log.warning("Cannot read what %s may use on %s: %s", username, target, error)
            return Access()

    async def _estimate(self, name: str, request: SpawnRequest, username: str, access: Access) -> Estimate | None:
        target, launch = self.site.target(name), self.launch(request, name)
        account = account_of(request, target) or (access.accounts or (None,))[0]
        partition = partition_of(request, target)
        shape = Question(name, launch.resources, request.runtime, partition, request.reservation, account)
        return await self.estimates.read(shape, lambda: self.targets[name].estimate(launch, username))


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at a task's end, so that asyncio does not report it as forgotten when nobody waits any more."""
    if not task.cancelled():
        task.exception()


def _hub_name(state_dir: Path) -> str:
    """This hub's name in marks, made at its first start."""
    path = state_dir / "hub_name"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(new_hub_name())
    return path.read_text().strip()


@lru_cache
def deployment(site: Path, state_dir: Path, callback_url: str) -> Deployment:
    """The one deployment of a site file in this process. Raises SiteError."""
    return Deployment(load_site(site), state_dir, callback_url)


def deployment_of(hub: Any, connect_url: str | None, site: Path, state_dir: Path) -> Deployment:
    """The one deployment of a site file in this process, for JupyterHub's record `hub` of itself. Raises SiteError.

    connect_url: the spawners' own trait `hub_connect_url`, where it is set; `hub` knows the application's.
    """
    own = urlparse(hub.url)
    base = connect_url or f"{own.scheme}://{own.netloc}"
    found = deployment(site, state_dir, url_path_join(base, own.path, CALLBACK_PATH))
    metrics.readings_from(lambda: found.board.last, found.silent)
    return found
