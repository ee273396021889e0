"""Claim: however a client of the papermill engine `hub` dies, its lease leaves no session, no job, no process behind.

    python -m benchmarks.engine_kills [--target local|slurm|kubernetes] [--kills 20] [--smoke]

Real clients (papermill as a process) run a notebook in real JupyterLab sessions of a real hub, some side by side. One
run in peace shows how long that takes. Then each client gets SIGKILL at a random instant, from before it asks for a
session until after it has stopped it. Measured is how long the hub still knows a session afterwards; at the end no
job, pod or process of any session may be there.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.spawners import report
from benchmarks.spawners.clusters import jobs, session_pods
from benchmarks.spawners.stage import stage
from tests.clusters.slurm.processes import wait_for
from tests.hub.papermill_run import PapermillRun
from tests.hub.process import Hub
from tests.hub.sites import clusters_site

CLAIM = "after SIGKILL at 20 random instants of a run, no session, job or process is left when the lease is over"
REMARK = "sessions are real JupyterLabs and clients real papermills, some at once: starts are slower than one alone"
CELLS = ["x = 1", "import time; time.sleep(5)", "print('first')", "import time; time.sleep(5)", "print('last')"]
# the last words of a client before its death, and what they say of where it was
PHASES = (
    ("The session is stopped", "stopped"),
    ("The session is ready", "cells"),
    ("Asking", "starting"),
    ("", "before the request"),
)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", choices=["local", "slurm", "kubernetes"], default="slurm")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=4, help="clients side by side")
    parser.add_argument("--lease", default="00:00:30")
    parser.add_argument("--stop", type=float, default=60, help="seconds that the hub may take to end a session")
    parser.add_argument("--seed", type=int, default=1)


@dataclass
class Place:
    """A hub with one target. left: the ids of what its sessions have there now."""

    hub: Hub
    directory: Path
    arguments: tuple[str, ...]
    left: Callable[[], list[str]]

    def run(self, name: str) -> PapermillRun:
        directory = self.directory / name
        directory.mkdir()
        return PapermillRun(directory, self.hub.login(name), CELLS, *self.arguments)


@contextlib.contextmanager
def place(chosen: argparse.Namespace) -> Iterator[Place]:
    with stage(chosen.target if chosen.target != "local" else "none", []) as here:
        site = clusters_site(here.kubernetes, here.slurm is not None)
        site["targets"] = [target for target in site["targets"] if target["name"] == chosen.target]
        for part in ("profiles", "environments"):
            for entry in site[part]:
                targets = entry.get("targets")
                if isinstance(targets, list):
                    entry["targets"] = [name for name in targets if name == chosen.target]
                elif targets:
                    entry["targets"] = {name: told for name, told in targets.items() if name == chosen.target}
        site["profiles"] = [p for p in site["profiles"] if p.get("targets") != []]
        site["environments"] = [e for e in site["environments"] if e["targets"]]
        if here.kubernetes is not None:
            site["targets"][0]["namespace"] = here.namespace
        if here.slurm is not None:
            site["targets"][0]["home"] = str(here.directory / "homes" / "{username}")
        hub = Hub(site, here.directory / "hub", here.environment).start(120)
        profile = "cpu-1" if chosen.target == "local" else "gpu-1"
        arguments = ("-p", "profile", profile, "-p", "lease", chosen.lease)

        def left() -> list[str]:
            if here.slurm is not None:
                return [*jobs(here.slurm), *processes()]
            if here.kubernetes is not None:
                return [*session_pods(here.kubernetes, here.namespace), *processes()]
            return processes()

        try:
            yield Place(hub, here.directory, arguments, left)
        finally:
            hub.close()


def processes() -> list[str]:
    """Processes on this machine that belong to a session of a run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if re.search(rb"(^|\0)JUPYTERHUB_USER=(kill|peace)\d", (entry / "environ").read_bytes()):
                    found.append(entry.name)
    return found


def in_peace(here: Place, number: int) -> float:
    """Seconds of a run that nobody kills."""
    began = time.monotonic()
    run = here.run(f"peace{number}")
    status = run.finish(300)
    if status:
        raise SystemExit(f"a run in peace ended with {status}:\n{run.log}")
    return time.monotonic() - began


def one_kill(here: Place, number: int, instant: float, limit: float) -> dict[str, Any]:
    run = here.run(f"kill{number}")
    threading.Event().wait(instant)
    ended = run.process.poll() is not None
    run.process.kill()
    run.finish()
    killed = time.monotonic()
    phase = next(name for words, name in PHASES if words in run.log)
    # a request that was on its way when the client died may reach the hub a moment later
    seen: set[str] = set()
    quiet_since: float | None = None
    while True:
        now = run.sessions()
        seen |= set(now)
        quiet_since = None if now else quiet_since or time.monotonic()
        over = time.monotonic() - killed
        if over > limit or (quiet_since is not None and time.monotonic() - quiet_since > 5):
            break
        time.sleep(0.5)
    gone_after = (quiet_since or time.monotonic()) - killed
    result = {
        "instant": round(instant, 2),
        "phase": "ended by itself" if ended else phase,
        "session_was_left": bool(seen),
        "gone_after_seconds": round(gone_after, 1) if seen else 0.0,
        "left": len(run.sessions()),
    }
    report.say(f"kill {number + 1}:", result)
    return result


async def measure(chosen: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    chance = random.Random(chosen.seed)
    hours, minutes, rest = (int(part) for part in chosen.lease.split(":"))
    lease = hours * 3600 + minutes * 60 + rest
    with place(chosen) as here, ThreadPoolExecutor(chosen.at_once) as pool:
        # that begin together, they slow each other down more than those that follow: the shortest is the measure
        took = min(pool.map(lambda number: in_peace(here, number), range(chosen.at_once)))
        report.say(f"a run in peace takes {took:.0f} s, {chosen.at_once} at once")
        instants = [chance.uniform(0, took + 1) for _ in range(chosen.kills)]
        kills = list(pool.map(lambda n: one_kill(here, n, instants[n], lease + chosen.stop), range(chosen.kills)))
        wait_for(lambda: not here.left(), 10, 0.5)
        remains = here.left()
        result = {
            "target": chosen.target,
            "kills": len(kills),
            "phases": dict(Counter(kill["phase"] for kill in kills)),
            "sessions_left_at_the_kill": sum(kill["session_was_left"] for kill in kills),
            "sessions_left_after_the_lease": sum(kill["left"] for kill in kills),
            "jobs_pods_processes_left": len(remains),
            "lease_seconds": lease,
            "run_in_peace_seconds": round(took, 1),
            "gone_after_seconds": report.spread([k["gone_after_seconds"] for k in kills if k["session_was_left"]]),
            "rounds": kills,
        }
    return result["sessions_left_after_the_lease"] == 0 and not remains, {"oberalp": result}


def main() -> int:
    chosen = report.arguments("engine_kills", __doc__, options)
    if chosen.smoke:
        chosen.kills = min(chosen.kills, 4)
    return report.run(chosen, CLAIM, lambda: measure(chosen), REMARK)


if __name__ == "__main__":
    sys.exit(main())
