"""Claim: 200 starts cancelled at random instants leave no job and no pod, and cause no HTTP 500.

    python -m benchmarks.cancelled_starts [--target slurm|kubernetes|both] [--smoke]

Each start is cancelled 0 to 10 s after it was asked for. On Slurm half of the GPUs are taken by others, so some starts
run and most queue, and every scheduler command takes 0, 0.4 or 1.0 s longer. After the last one the cluster has 60 s to
settle; what is there then is left behind. Stock peers: batchspawner; kubespawner, and wrapspawner over it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import sys
import time
from typing import Any

import httpx

from benchmarks.spawners import report
from benchmarks.spawners.client import HubClient
from benchmarks.spawners.clusters import filled
from benchmarks.spawners.contenders import Contender
from benchmarks.spawners.stage import Stage, add_targets, stage

CLAIM = "no job, no pod and no HTTP 500 after 200 starts cancelled within 10 s, with 0, 0.4 and 1.0 s for each command"


def options(parser: argparse.ArgumentParser) -> None:
    add_targets(parser)
    parser.add_argument("--starts", type=int, default=200, help="for each contender and delay")
    parser.add_argument("--spread", type=float, default=40, help="seconds over which the starts are asked for")
    parser.add_argument("--longest", type=float, default=10, help="a start is cancelled after at most so many seconds")
    parser.add_argument("--settle", type=float, default=60, help="seconds after the last cancellation")
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 0.4, 1.0], help="of each scheduler command")
    parser.add_argument("--seed", type=int, default=1)


async def start_and_cancel(client: HubClient, name: str, begin: float, life: float) -> None:
    async def ask() -> None:
        with contextlib.suppress(httpx.TransportError):
            await client.start(name)

    await asyncio.sleep(begin)
    asking = asyncio.create_task(ask())
    await asyncio.sleep(life)
    with contextlib.suppress(httpx.TransportError):
        await client.stop(name)
    await asking


async def settled(here: Stage, contender: Contender, client: HubClient, seconds: float) -> dict[str, Any]:
    """Wait until nothing is left and nothing comes after it for 5 s, or the time is over."""
    deadline, began, clean_since = time.monotonic() + seconds, time.monotonic(), None
    while time.monotonic() < deadline:
        left, known = here.left(contender.kind), len(await client.servers())
        if left or known:
            clean_since = None
        elif clean_since is None:
            clean_since = time.monotonic()
        elif time.monotonic() - clean_since > 5:
            break
        await asyncio.sleep(1)
    return {
        "left": here.left(contender.kind),
        "servers_on_record": len(await client.servers()),
        "seconds_until_clean": round(clean_since - began, 1) if clean_since else None,
    }


async def one(here: Stage, contender: Contender, chosen: argparse.Namespace, delay: float) -> dict[str, Any]:
    chance = random.Random(chosen.seed)  # the same instants for every contender
    async with here.hub(contender, f"-{delay:g}") as (hub, client):
        if here.slow is not None and contender.kind == "slurm":
            here.slow.delay = delay
        began = time.monotonic()
        plan = [(chance.uniform(0, chosen.spread), chance.uniform(0, chosen.longest)) for _ in range(chosen.starts)]
        await asyncio.gather(*(start_and_cancel(client, f"c{i}", *when) for i, when in enumerate(plan)))
        took = time.monotonic() - began
        result = await settled(here, contender, client, chosen.settle)
        if here.slow is not None:
            here.slow.delay = 0
        statuses = {f"{what} {status}": n for (what, status), n in sorted(client.statuses.items()) if what != "look"}
        found = {
            "starts": chosen.starts,
            **result,
            "http_500": sum(n for (_, status), n in client.statuses.items() if status == 500),
            "http_500_in_log": len(re.findall(r"\] 500 (?:GET|POST|DELETE)|  500 (?:GET|POST|DELETE)", hub.log)),
            "statuses": statuses,
            "seconds": round(took, 1),
            "errors": client.errors[:3],
        }
        report.say({k: found[k] for k in ("left", "servers_on_record", "seconds_until_clean", "http_500")})
        return found


async def measure(chosen: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    results: dict[str, Any] = {}
    with stage(chosen.target, chosen.only) as here:
        for contender in here.contenders():
            cases = results.setdefault(contender.kind, {}).setdefault(contender.name, {})
            if contender.missing:
                cases["not run"] = contender.missing
            elif contender.kind == "slurm":
                assert here.slurm is not None
                for delay in chosen.delays:
                    with filled(here.slurm, 8):
                        cases[f"{delay:g} s"] = await one(here, contender, chosen, delay)
            else:
                cases["0 s"] = await one(here, contender, chosen, 0)
    own = [case for kind in results.values() for case in kind.get("oberalp", {}).values()]
    return bool(own) and all(case["left"] == 0 and case["http_500"] == 0 for case in own), results


def main() -> int:
    chosen = report.arguments("cancelled_starts", __doc__, options)
    if chosen.smoke:
        chosen.starts, chosen.spread, chosen.settle, chosen.delays = 12, 4, 25, [0.4]
    return report.run(chosen, CLAIM, lambda: measure(chosen))


if __name__ == "__main__":
    sys.exit(main())
