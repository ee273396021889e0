"""Sessions as processes of the hub's own account: laptops and first steps. Nothing separates one user from another.

A session's processes carry its mark in their environment, so that stopping it also ends what it started in the
background (a training run asked to stop keeps its checkpoint), and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any
from weakref import WeakSet

from jupyterhub.spawner import SimpleLocalProcessSpawner, Spawner

from ..capacity import Access, NodeCapacity, Reading
from ..diagnose import StartFailed
from ..diagnose import process as diagnose
from ..diagnose.log import without_secrets
from ..events import EventLog
from ..names import directory_name
from ..site import LocalTarget
from .base import Launch, set_traits

MARK = "HYBRIDSPAWNER_SESSION"


class LocalSessionSpawner(SimpleLocalProcessSpawner):
    """JupyterHub's local spawner, with a log file per session and a stop that leaves no process."""

    progress_log: EventLog | None = None
    on_change: Callable[[], None] = staticmethod(lambda: None)
    log_file: Path
    mark = ""
    waiting = False
    gate: AbstractAsyncContextManager[Any] = nullcontext()
    queue_seconds = 0.0

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "mark": self.mark}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.mark = str(state.get("mark", ""))

    def get_env(self) -> dict[str, str]:
        env = super().get_env()
        programs = str(Path(self.cmd[0]).parent)  # what the environment installed is what a terminal finds first
        return {**env, MARK: self.mark, "PATH": f"{programs}{os.pathsep}{env.get('PATH', os.defpath)}"}

    async def start_session(self) -> str:
        self.on_change()
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("w") as log:
            self.popen_kwargs = {"stdout": log, "stderr": log, "stdin": -3}
            try:
                async with self.gate:
                    ip, port = await self.start()
            except OSError as error:
                why = f"{error.filename or self.cmd[0]}: {error.strerror}."
                remedy = "Choose another environment, and tell the site's support."
                raise StartFailed(
                    "The session's process could not be started.", why, remedy, reason="site_error"
                ) from None
        self.on_change()
        if self.progress_log is not None:
            self.progress_log.append("The process runs; its server is starting", 60)
        return f"http://{ip}:{port}"

    async def ended(self) -> StartFailed | None:
        code = await super().poll()
        if code is None or not self.mark:
            return None
        return diagnose.ended_process(code, await self.log_tail())

    async def log_tail(self) -> str:
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        return without_secrets("\n".join(text.splitlines()[-30:]), [self.api_token])

    async def poll(self) -> int | None:
        if self.pid and self.proc is None and self.pid not in _processes(self.mark):
            return 0  # after a restart of the hub or the machine, the number may be somebody else's
        code: int | None = await super().poll()
        if code is not None:
            _signal(self.mark, signal.SIGTERM)  # what the server started in the background ends with its session
        return code

    async def stop_session(self, now: bool) -> bool:
        await self.stop(now)
        for sig, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            _signal(self.mark, sig)
            for _ in range(seconds * 10):
                if not _processes(self.mark):
                    return True
                await asyncio.sleep(0.1)
        return not _processes(self.mark)

    async def current_url(self) -> str | None:
        return None


def _processes(mark: str) -> list[int]:
    """Living processes of a session, by the mark in their environment (Linux; elsewhere none can be told)."""
    if not mark:
        return []
    found, wanted = [], f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _marks() -> set[str]:
    """The marks that living processes carry."""
    prefix, found = f"{MARK}=".encode(), set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found |= {v[len(prefix) :].decode(errors="replace") for v in variables if v.startswith(prefix)}
    return found


def _signal(mark: str, sig: signal.Signals) -> None:
    for pid in _processes(mark):
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            pass


class Local:
    """`Target` of local processes. Directories are below `state_dir`."""

    def __init__(self, spec: LocalTarget, state_dir: Path, site_dir: Path) -> None:
        self.name, self._spec, self._state_dir = spec.name, spec, state_dir
        self._skeleton = site_dir / spec.skeleton if spec.skeleton else None
        self._children: WeakSet[LocalSessionSpawner] = WeakSet()

    async def read(self) -> Reading:
        cpus = os.cpu_count() or 1
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        running = sum(bool(child.pid) for child in self._children)
        full = self._spec.max_sessions is not None and running >= self._spec.max_sessions
        # cores are shared, not handed out: any number of sessions may start unless the site sets a limit
        return Reading((NodeCapacity("this machine", cpus, 0 if full else cpus, memory, memory, {}, {}),))

    async def access(self, username: str) -> Access:
        return Access()

    async def estimate(self, launch: Launch, username: str) -> datetime | None:
        return None

    async def strays(self, hub: str, known: Collection[str]) -> list[str]:
        ended = []
        for mark in {mark for mark in _marks() if mark.startswith(hub + "-")} - set(known):
            _signal(mark, signal.SIGTERM)
            ended.append(f"processes of {mark}")
        return ended

    def silent_for(self) -> float | None:
        return None

    def child_class(self) -> type[Spawner]:
        return LocalSessionSpawner

    def prepare(self, child: Any, launch: Launch | None) -> None:
        folder = directory_name(child.user.name)
        child.home_dir = str(self._state_dir / self._spec.home.format(username=folder))
        child.log_file = self._state_dir / "log" / "sessions" / f"{folder}{'+' + child.name if child.name else ''}.log"
        # jupyterhub's server refuses to run as root unless told so; in a container there is often nobody else
        child.args = [*child.args, *(["--allow-root"] if os.geteuid() == 0 else [])]
        child.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
        self._children.add(child)
        if launch is None:
            return
        if launch.realisation.python:
            child.cmd = [launch.realisation.python, "-m", "jupyterhub.singleuser"]
        child.environment = {**child.environment, **launch.variables}
        set_traits(child, self._spec.traits, f"target {self.name}")
        set_traits(child, launch.realisation.traits, f"environment {launch.request.environment} on {self.name}")
        self._fill_home(Path(child.home_dir))

    def _fill_home(self, home: Path) -> None:
        """Copy what the skeleton has and the home lacks; never over a user's own file."""
        home.mkdir(parents=True, exist_ok=True)
        if self._skeleton is None or not self._skeleton.is_dir():
            return
        for source in self._skeleton.rglob("*"):
            target = home / self._skeleton.name / source.relative_to(self._skeleton)
            if source.is_file() and not target.exists() and ".ipynb_checkpoints" not in source.parts:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
