"""Claim: a hub that is killed at any instant finds its sessions again: each is adopted or proved gone, none lost.

    python -m benchmarks.hub_kills [--kills 50] [--peer-kills 15] [--smoke]

Each round asks for some sessions on a Slurm with two free GPUs or none, sends SIGKILL to the hub at a random instant
up to 8 s later, starts it again and gives it time to settle. Then every job in the queue must belong to a session that
the hub has on record (else it is an orphan), and every session that was ready before and whose job still runs must be
ready again (else it is lost). Ready sessions stay for two rounds, so kills meet old ones as well. Stock
peer: batchspawner.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from typing import Any

import httpx

from benchmarks.spawners import report
from benchmarks.spawners.client import HubClient, job_ids, until
from benchmarks.spawners.clusters import filled, jobs
from benchmarks.spawners.contenders import Contender, ContenderHub
from benchmarks.spawners.stage import Stage, stage

CLAIM = "after each of 50 kills of the hub with starts in flight every session is adopted or gone; no orphan, none lost"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=50, help="of our hub")
    parser.add_argument("--peer-kills", type=int, default=15, help="of a stock peer")
    parser.add_argument("--starts", type=int, default=4, help="in each round")
    parser.add_argument("--longest", type=float, default=8, help="the hub is killed at most so many seconds later")
    parser.add_argument("--settle", type=float, default=20, help="seconds that a hub has to sort things out")
    parser.add_argument("--filled", type=int, default=14, help="GPUs of 16 that others hold")
    parser.add_argument("--seed", type=int, default=1)


async def _ask(client: HubClient, name: str, after: float) -> None:
    await asyncio.sleep(after)
    with contextlib.suppress(httpx.TransportError):
        await client.start(name)


async def _known_jobs(client: HubClient) -> tuple[dict[str, dict[str, Any]], set[str]]:
    servers = await client.servers(with_state=True)
    return servers, {job for server in servers.values() for job in job_ids(server.get("state"))}


async def one_round(
    here: Stage, hub: ContenderHub, client: HubClient, number: int, chance: random.Random, chosen: argparse.Namespace
) -> dict[str, Any]:
    assert here.slurm is not None
    slurm = here.slurm
    instant = chance.uniform(0.2, chosen.longest)
    # in half of the rounds nothing can start before the hub is back: queued sessions are what hubs forget
    with filled(slurm, 2) if chance.random() < 0.5 else contextlib.nullcontext():
        asking = [
            asyncio.create_task(_ask(client, f"k{number}-{i}", chance.uniform(0, chosen.longest / 2)))
            for i in range(chosen.starts)
        ]
        await asyncio.sleep(instant)
        before: dict[str, set[str]] = {}
        with contextlib.suppress(httpx.HTTPError):
            servers = await client.servers(with_state=True)
            before = {name: job_ids(server.get("state")) for name, server in servers.items() if server["ready"]}
        hub.kill()
        await asyncio.gather(*asking)
        down = time.monotonic()
        await asyncio.to_thread(hub.start)
    restart = time.monotonic() - down

    async def sorted_out() -> bool:
        """Every job belongs to a session on record, and every session that is ready or waits has a job."""
        servers, known = await _known_jobs(client)
        queued = await asyncio.to_thread(jobs, slurm)
        running = {job for job, state in queued.items() if state == "RUNNING"}
        ready = {job for server in servers.values() if server["ready"] for job in job_ids(server.get("state"))}
        return (
            set(queued) <= known
            and running <= ready
            and all(job_ids(server.get("state")) & set(queued) for server in servers.values())
        )

    began = time.monotonic()
    await until(sorted_out, chosen.settle, 0.5)
    servers, known = await _known_jobs(client)
    queued = await asyncio.to_thread(jobs, slurm)
    ready = {name for name, server in servers.items() if server["ready"]}
    lost = [name for name, ids in before.items() if ids & set(queued) and name not in ready]
    result = {
        "instant": round(instant, 2),
        "ready_before": len(before),
        "restart_seconds": round(restart, 1),
        "settled_after_seconds": round(time.monotonic() - began, 1),
        "adopted": len(ready) + sum(1 for s in servers.values() if s.get("pending") == "spawn"),
        "orphans": len(set(queued) - known),
        "lost": len(lost),
        "not_reached": [name for name in ready if not await client.reaches(name)],
        "without_job": sorted(n for n, s in servers.items() if not job_ids(s.get("state")) & set(queued)),
    }
    here.slurm.run("scancel", *(set(queued) - known), check=False) if set(queued) - known else None
    old = [name for name in servers if int(name[1:].split("-")[0]) < number]
    await asyncio.gather(*(client.stop(name) for name in old))
    return result


async def one(here: Stage, contender: Contender, chosen: argparse.Namespace) -> dict[str, Any]:
    assert here.slurm is not None
    chance = random.Random(chosen.seed)
    with filled(here.slurm, chosen.filled):
        async with here.hub(contender) as (hub, client):
            rounds = []
            for number in range(chosen.kills if contender.name == "oberalp" else chosen.peer_kills):
                rounds.append(await one_round(here, hub, client, number, chance, chosen))
                if rounds[-1]["orphans"] or rounds[-1]["lost"] or number % 10 == 0:
                    report.say(f"kill {number + 1}:", rounds[-1])
            return {
                "kills": len(rounds),
                "starts": chosen.starts * len(rounds),
                "orphans": sum(r["orphans"] for r in rounds),
                "lost": sum(r["lost"] for r in rounds),
                "records_without_job": sum(len(r["without_job"]) for r in rounds),
                "ready_but_not_reached": sum(len(r["not_reached"]) for r in rounds),
                "settled_after_seconds": report.spread([r["settled_after_seconds"] for r in rounds]),
                "restart_seconds": report.spread([r["restart_seconds"] for r in rounds]),
                "rounds": rounds,
            }


async def measure(chosen: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    with stage("slurm", chosen.only) as here:
        results = {contender.name: await one(here, contender, chosen) for contender in here.contenders()}
    own = results.get("oberalp")
    return own is not None and own["orphans"] == own["lost"] == own["ready_but_not_reached"] == 0, results


def main() -> int:
    chosen = report.arguments("hub_kills", __doc__, options)
    if chosen.smoke:
        chosen.kills, chosen.peer_kills, chosen.settle = 3, 3, 20
    return report.run(chosen, CLAIM, lambda: measure(chosen))


if __name__ == "__main__":
    sys.exit(main())
