"""Claim: what a hub asks Slurm does not grow with the number of its sessions.

    python -m benchmarks.scheduler_calls [--smoke]

Counts what slurmctld answers in 60 s (`sdiag`, by type of message) while sessions run and wait: 2 running and 10
queued, then 20 running and 100 queued. Messages between Slurm's own daemons are left out. Stock peer:
batchspawner, which asks for each queued session twice a second.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from typing import Any

from benchmarks.spawners import report
from benchmarks.spawners.client import HubClient, until
from benchmarks.spawners.clusters import filled, forget_rpcs, jobs, rpcs
from benchmarks.spawners.contenders import Contender
from benchmarks.spawners.stage import Stage, stage

CLAIM = "the queries of 20 running and 100 queued sessions are at most 1.3 times those of 2 running and 10 queued"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--running", type=int, default=20)
    parser.add_argument("--queued", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)


async def one(
    here: Stage, contender: Contender, running: int, queued: int, gpus: int, seconds: float
) -> dict[str, Any]:
    assert here.slurm is not None and here.slow is not None
    slurm = here.slurm
    with filled(slurm, gpus - running):
        async with here.hub(contender, f"-{running}-{queued}") as (_, client):
            asking = [asyncio.create_task(client.start(f"s{i}")) for i in range(running + queued)]

            async def as_wanted() -> bool:
                states = Counter((await asyncio.to_thread(jobs, slurm)).values())
                ready = sum(server["ready"] for server in (await client.servers()).values())
                return states["RUNNING"] == running == ready and states["PENDING"] == queued

            began = time.monotonic()
            reached = await until(as_wanted, 180, 2)
            await asyncio.gather(*asking, return_exceptions=True)
            states = dict(Counter((await asyncio.to_thread(jobs, slurm)).values()))
            took = time.monotonic() - began
            forget_rpcs(slurm)
            here.slow.forget_calls()
            await asyncio.sleep(seconds)
            counts, commands = rpcs(slurm), here.slow.calls
            await _stop(client)
    queries = sum(n for name, n in counts.items() if "INFO" in name)
    report.say(f"{queries} queries, {sum(commands.values())} commands in {seconds:.0f} s")
    return {
        "as_wanted": reached,
        "jobs": states,
        "seconds_to_get_there": round(took, 1),
        "queries": queries,
        "queries_per_second": round(queries / seconds, 2),
        "rpcs": dict(sorted(counts.items())),
        "commands": commands,
        "start_statuses": {str(status): n for (what, status), n in client.statuses.items() if what == "start"},
    }


async def _stop(client: HubClient) -> None:
    """Quickly: what is left ends with the hub."""
    servers = await client.servers()
    await asyncio.gather(*(client.stop(name, 1) for name in servers), return_exceptions=True)


async def measure(chosen: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    nodes = -(-chosen.running // 4)
    sizes = [(max(1, chosen.running // 10), max(1, chosen.queued // 10)), (chosen.running, chosen.queued)]
    results: dict[str, Any] = {}
    with stage("slurm", chosen.only, nodes=nodes) as here:
        for contender in here.contenders():
            found = results[contender.name] = {}
            for running, queued in sizes:
                key = f"{running} running, {queued} queued"
                found[key] = await one(here, contender, running, queued, nodes * 4, chosen.seconds)
            few, many = list(found.values())
            found["growth"] = round(many["queries"] / max(1, few["queries"]), 2)
    own = results.get("oberalp")
    return own is not None and own["growth"] <= 1.3, results


def main() -> int:
    chosen = report.arguments("scheduler_calls", __doc__, options)
    if chosen.smoke:
        chosen.running, chosen.queued, chosen.seconds = 4, 10, 10
    return report.run(chosen, CLAIM, lambda: measure(chosen))


if __name__ == "__main__":
    sys.exit(main())
