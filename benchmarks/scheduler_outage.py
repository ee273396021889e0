"""Claim: sessions survive 60 s without their scheduler: all on record and reachable during it and after it.

    python -m benchmarks.scheduler_outage [--target slurm|kubernetes|both] [--smoke]

20 sessions run; then slurmctld is stopped for 60 s and started again, or the Kubernetes API server is held by SIGSTOP
for 60 s (only where the test cluster runs on this machine). Every 5 s the hub is asked which sessions it has, and each
session is called through the proxy; a stop that is asked for meanwhile must be carried out afterwards. The hubs poll
their sessions every 10 s here, so that each meets the outage some times. Stock peers: batchspawner; kubespawner and
wrapspawner.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from benchmarks.spawners import report
from benchmarks.spawners.client import HubClient, until
from benchmarks.spawners.clusters import api_server_pid
from benchmarks.spawners.contenders import Contender, Setting
from benchmarks.spawners.stage import Stage, add_targets, stage

CLAIM = "20 running sessions are on record and reachable during and after 60 s without scheduler"


def options(parser: argparse.ArgumentParser) -> None:
    add_targets(parser)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="length of the outage")
    parser.add_argument("--after", type=float, default=40, help="seconds to go on looking")


@contextmanager
def outage(here: Stage, kind: str) -> Iterator[None]:
    if kind == "slurm":
        assert here.slurm is not None
        here.slurm.stop_controller()
        try:
            yield
        finally:
            here.slurm.start_controller()
    else:
        pid = api_server_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


async def look(client: HubClient, names: list[str], began: float) -> dict[str, Any]:
    """Which of the sessions are on record and ready, and which answer."""
    try:
        servers = await client.servers()
        known = sum(name in servers and bool(servers[name]["ready"]) for name in names)
    except httpx.HTTPError:
        known = -1  # the hub itself does not answer
    reached = await asyncio.gather(*(client.reaches(name) for name in names))
    return {"at": round(time.monotonic() - began, 1), "on_record": known, "reached": sum(reached)}


async def one(here: Stage, contender: Contender, chosen: argparse.Namespace) -> dict[str, Any]:
    async with here.hub(contender) as (_, client):
        names = [f"o{number}" for number in range(chosen.sessions)]
        asking = [asyncio.create_task(client.start(name)) for name in names]

        async def all_ready() -> bool:
            servers = await client.servers()
            return sum(bool(server["ready"]) for server in servers.values()) == len(names)

        if not await until(all_ready, 120, 1):
            return {
                "fault": "not all sessions became ready",
                "statuses": {str(k): v for k, v in client.statuses.items()},
            }
        await asyncio.gather(*asking)
        stopped, kept = names[0], names[1:]
        looks = []
        began = time.monotonic()
        context = outage(here, contender.kind)
        await asyncio.to_thread(context.__enter__)
        try:
            stopping = asyncio.create_task(client.stop(stopped))
            while time.monotonic() - began < chosen.seconds:
                looks.append({"outage": True, **await look(client, kept, began)})
                await asyncio.sleep(5)
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)
        over = time.monotonic()
        while time.monotonic() - over < chosen.after:
            looks.append({"outage": False, **await look(client, kept, began)})
            await asyncio.sleep(5)
        with contextlib.suppress(httpx.TransportError, asyncio.TimeoutError):
            await asyncio.wait_for(stopping, 30)
        left = here.left(contender.kind)
        found = {
            "sessions": len(kept),
            "on_record_at_worst": min(entry["on_record"] for entry in looks),
            "on_record_at_the_end": looks[-1]["on_record"],
            "reached_at_worst": min(entry["reached"] for entry in looks),
            "reached_at_the_end": looks[-1]["reached"],
            "jobs_or_pods_at_the_end": left,
            "stopped_during_the_outage_is_gone": left == len(kept),
            "looks": looks,
        }
        report.say({k: v for k, v in found.items() if k != "looks"})
        stops = [client.stop(name, 1) for name in kept]
        await asyncio.gather(*stops, return_exceptions=True)
        return found


async def measure(chosen: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    results: dict[str, Any] = {}
    nodes = -(-chosen.sessions // 4)
    with stage(chosen.target, chosen.only, nodes=nodes) as here:
        for contender in here.contenders(Setting(pod_cpus=0.03, poll_seconds=10)):
            place = results.setdefault(contender.kind, {})
            if contender.missing:
                place[contender.name] = {"not run": contender.missing}
            else:
                place[contender.name] = await one(here, contender, chosen)
    own = [kind["oberalp"] for kind in results.values() if "oberalp" in kind]
    keys = ("on_record_at_worst", "on_record_at_the_end", "reached_at_worst", "reached_at_the_end")
    return bool(own) and all(found.get(key) == found.get("sessions", -1) for found in own for key in keys), results


def main() -> int:
    chosen = report.arguments("scheduler_outage", __doc__, options)
    if chosen.smoke:
        chosen.sessions, chosen.seconds, chosen.after = 3, 12, 12
    return report.run(chosen, CLAIM, lambda: measure(chosen))


if __name__ == "__main__":
    sys.exit(main())
