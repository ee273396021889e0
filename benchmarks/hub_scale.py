"""Claim: 2,000 sessions of one hub start, and the number of its scheduler commands does not grow with them.

    python -m benchmarks.hub_scale [--sizes 200 500 1000 2000] [--smoke]

The jobs are simulated: Slurm's commands are replaced by a table, one process answers for all servers. So what is
measured is the hub's own side: time, memory, processor and commands. At each size all sessions are first brought up,
then the hub is watched for a while. Stock peer: batchspawner, up to the sizes of --stock-sizes (it runs a squeue for
each session and poll).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.spawners import contenders, report
from benchmarks.spawners.client import HubClient, until
from benchmarks.spawners.contenders import Contender, ContenderHub, Setting
from benchmarks.spawners.farm import Farm

CLAIM = "2,000 sessions of one hub start, and its scheduler commands do not grow with them"
_TICKS = os.sysconf("SC_CLK_TCK")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 500, 1000, 2000])
    parser.add_argument("--stock-sizes", type=int, nargs="+", default=[200])
    parser.add_argument("--at-once", type=int, default=20, help="starts under way at the same time")
    parser.add_argument("--watch", type=float, default=30, help="seconds at each size")


def memory_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    return round(int(found[1]) * 1024 / 1e6, 1) if found else 0.0


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Of the process, and of the children that it has waited for (its commands)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / _TICKS, children / _TICKS


async def grow(client: HubClient, size: int, at_once: int) -> bool:
    """Start sessions until there are `size` of them; whether all became ready within a minute of the last answer."""
    limit = asyncio.Semaphore(at_once)

    async def ask(number: int) -> None:
        async with limit:
            await client.start(f"n{number}")

    servers = await client.servers()
    missing = [number for number in range(size) if f"n{number}" not in servers]
    await asyncio.gather(*(ask(number) for number in missing), return_exceptions=True)

    async def all_ready() -> bool:
        servers = await client.servers()
        return len(servers) == size and all(server["ready"] for server in servers.values())

    return await until(all_ready, 60 + size / 2, 2)  # starts go through the hub one after another, some in a second


async def watch(hub: ContenderHub, farm: Farm, seconds: float) -> dict[str, Any]:
    farm.forget_calls()
    own, children = cpu_seconds(hub.pid)
    times, began = [], time.monotonic()
    async with httpx.AsyncClient(base_url=hub.url, trust_env=False, timeout=60) as http:
        while time.monotonic() - began < seconds:
            asked = time.monotonic()
            await http.get("/hub/api")
            times.append(time.monotonic() - asked)
            await asyncio.sleep(0.2)
    took = time.monotonic() - began
    own_after, children_after = cpu_seconds(hub.pid)
    calls = farm.calls
    return {
        "hub_memory_mb": memory_mb(hub.pid),
        "hub_cpu_percent": round(100 * (own_after - own) / took, 1),
        "commands_cpu_percent": round(100 * (children_after - children) / took, 1),
        "commands_per_minute": round(60 * sum(calls.values()) / took, 1),
        "commands": calls,
        "get_hub_api_seconds": report.spread(times),
    }


async def one(directory: Path, contender: Contender, sizes: list[int], chosen: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    report.say(contender.name)
    async with Farm(directory / "farm") as farm:
        path = f"{farm.path}{os.pathsep}{os.environ['PATH']}"
        with ContenderHub(contender, directory / "hub", {"PATH": path, "SLURM_CONF": "/dev/null"}) as hub:
            async with HubClient(hub) as client:
                found["0"] = {"hub_memory_mb": memory_mb(hub.pid)}
                before = 0
                for size in sizes:
                    began, cpu = time.monotonic(), cpu_seconds(hub.pid)[0]
                    ready = await grow(client, size, chosen.at_once)
                    took, used = time.monotonic() - began, cpu_seconds(hub.pid)[0] - cpu
                    case = {
                        "all_ready": ready,
                        "seconds_to_start": round(took, 1),
                        "starts_per_second": round((size - before) / took, 2),
                        "hub_cpu_ms_per_start": round(1000 * used / (size - before), 1),
                        "statuses": {str(s): n for (what, s), n in client.statuses.items() if what == "start"},
                        **await watch(hub, farm, chosen.watch),
                    }
                    report.say(size, {k: v for k, v in case.items() if k not in ("commands", "statuses")})
                    found[str(size)] = case
                    before = size
                farm.end_all()
    return found


async def measure(chosen: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    setting, results = Setting(gpus=0), {}
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        for contender, sizes in (
            (contenders.ours(Path(name) / "oberalp", setting), chosen.sizes),
            (contenders.batchspawner(Path(name) / "batchspawner", setting), chosen.stock_sizes),
        ):
            if not chosen.only or contender.name in chosen.only:
                results[contender.name] = await one(Path(name) / contender.name, contender, sizes, chosen)
    own = [results["oberalp"][str(size)] for size in chosen.sizes] if "oberalp" in results else []
    steady = bool(own) and own[-1]["commands_per_minute"] <= 1.3 * own[0]["commands_per_minute"] + 6
    return steady and all(case["all_ready"] for case in own), results


def main() -> int:
    chosen = report.arguments("hub_scale", __doc__, options)
    if chosen.smoke:
        chosen.sizes, chosen.stock_sizes, chosen.watch, chosen.at_once = [5, 10], [5], 10, 5
    return report.run(chosen, CLAIM, lambda: measure(chosen))


if __name__ == "__main__":
    sys.exit(main())
