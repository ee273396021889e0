"""The Slurm target: client (how to ask), watcher (when to ask), script (what is submitted), spawner (one session)."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Collection
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner

from ... import metrics
from ...capacity import Access, Reading
from ...site import SlurmTarget
from ..base import Launch, set_traits
from .client import Submission
from .connect import connect
from .requirements import estimate_variables, requirements
from .script import TEMPLATE, render
from .watcher import SlurmWatcher

_RIGHTS_SECONDS = 300.0


class Slurm:
    """`Target` for one cluster: one client and one watcher, shared by all sessions."""

    def __init__(self, spec: SlurmTarget, callback_url: str) -> None:
        self.name, self._spec, self._callback_url = spec.name, spec, callback_url
        self.client = connect(spec, partial(metrics.scheduler_called, spec.name))
        self.watcher = SlurmWatcher(self.client)
        self._rights: dict[str, Access] = {}
        self._rights_at = float("-inf")

    async def read(self) -> Reading:
        return Reading(await self.client.nodes())

    async def access(self, username: str) -> Access:
        if time.monotonic() - self._rights_at > _RIGHTS_SECONDS:
            self._rights_at = time.monotonic()  # before the answer: one question at a time
            self._rights = await self.client.rights()
        return self._rights.get(username, Access())

    async def estimate(self, launch: Launch, username: str) -> datetime | None:
        script = render(TEMPLATE, estimate_variables(self._spec, launch))
        mark = "estimate"  # of no hub: should a job of it ever appear, it is nobody's session
        return await self.client.estimate(Submission(script, {}, username, mark, self._home(username)))

    async def strays(self, hub: str, known: Collection[str]) -> list[str]:
        ended = []
        for job in (await self.client.marked(hub + "-", besides=known)).values():
            if not job.ended:
                await self.client.cancel(job.job_id, job.user)
                ended.append(f"job {job.job_id} of {job.user}")
        return ended

    def silent_for(self) -> float | None:
        since = self.watcher.silent_since
        return None if since is None else time.monotonic() - since

    def child_class(self) -> type[Spawner]:
        from .spawner import SlurmSessionSpawner

        return SlurmSessionSpawner

    def prepare(self, child: Any, launch: Launch | None) -> None:
        child.client, child.watcher, child.callback_url = self.client, self.watcher, self._callback_url
        child.node_domain, child.longest_wait = self._spec.node_domain, self._spec.start_timeout
        child.req_homedir = self._home(child.user.name)
        if os.geteuid() == 0 and self._spec.run_as == "hub":
            child.args = [*child.args, "--allow-root"]
        if launch is None:
            return
        realisation = launch.realisation
        for name, value in requirements(self._spec, launch).items():
            setattr(child, f"req_{name}", value)
        child.req_prologue = "\n".join(filter(None, [child.req_prologue, realisation.prologue]))
        child.python = realisation.python or child.python
        child.environment = {**child.environment, **launch.variables}
        set_traits(child, self._spec.traits, f"target {self.name}")
        set_traits(child, realisation.traits, f"environment {launch.request.environment} on {self.name}")

    def _home(self, username: str) -> str:
        if self._spec.home is None:
            account = username if self._spec.run_as == "user" else pwd.getpwuid(os.getuid()).pw_name
            try:
                return pwd.getpwnam(account).pw_dir
            except KeyError:
                return f"/home/{username}"
        home = self._spec.home.format(username=username)
        if self._spec.run_as == "hub" and self._spec.transport.kind == "local":
            Path(home).mkdir(parents=True, exist_ok=True)
        return home
