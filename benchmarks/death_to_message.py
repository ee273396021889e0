"""Claim: a job or pod that dies while a session starts is reported on the progress page within 3 s, with its reason.

    python -m benchmarks.death_to_message [--target slurm|kubernetes|both] [--smoke]

Sessions are ended while they start: before their server has called the hub (its node is busy: `sleep 60` comes first),
and after that, before it answers. They are ended by scancel, by SIGKILL for all their processes, and by the deletion of
the pod. Timed from the moment that no process of the session is left to the failure on the progress stream. Stock
peers: batchspawner; kubespawner and wrapspawner. A stream that says nothing for --patience seconds counts as that long.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.spawners import report
from benchmarks.spawners.client import HubClient, until
from benchmarks.spawners.clusters import kill_server, server_processes
from benchmarks.spawners.contenders import Contender, Setting
from benchmarks.spawners.stage import Stage, add_targets, stage

CLAIM = "at most 3 s from the end of a job or pod to its reason on the progress page"
BEFORE, AFTER = Setting(slow_node=60), Setting(slow_server=60)
CASES = {
    "slurm": [("scancel", BEFORE), ("kill", BEFORE), ("scancel", AFTER), ("kill", AFTER)],
    "kubernetes": [("delete", AFTER), ("kill", AFTER)],
}


def options(parser: argparse.ArgumentParser) -> None:
    add_targets(parser)
    parser.add_argument("--repeats", type=int, default=5, help="deaths of each kind")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for the message")


def _variable(pids: Iterable[int], name: str) -> str:
    """The first value of an environment variable; a process that has just begun may show none yet."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                if entry.startswith(name.encode() + b"="):
                    return entry.partition(b"=")[2].decode()
    raise LookupError(f"no process of the session has {name}")


def end(here: Stage, how: str, server: str) -> None:
    """End the job or pod of a named server, as somebody else would."""
    if how == "kill":
        assert kill_server(server), f"{server} has no process"
        return
    pids = server_processes(server)
    if how == "scancel":
        assert here.slurm is not None
        here.slurm.run("scancel", _variable(pids, "SLURM_JOB_ID"))
    else:
        assert here.kubernetes is not None
        pod = f"/api/v1/namespaces/{here.namespace}/pods/{_variable(pids, 'HOSTNAME')}"
        here.kubernetes.request("DELETE", pod, params={"gracePeriodSeconds": "1"})


async def death(
    here: Stage, client: HubClient, how: str, setting: Setting, server: str, patience: float
) -> dict[str, Any]:
    asking = asyncio.create_task(client.start(server))
    told = asyncio.Event()
    said: dict[str, Any] = {}

    async def follow() -> None:
        while not told.is_set():  # refused until the hub has heard of the server
            with contextlib.suppress(Exception):
                async for event in client.events(server):
                    if event.get("failed"):
                        said.update(event, at=time.monotonic())
                        told.set()
                        return
            await asyncio.sleep(0.2)

    following = asyncio.create_task(follow())

    async def runs() -> bool:
        return bool(await asyncio.to_thread(server_processes, server))

    try:
        if not await until(runs, 90, 0.3):
            return {"fault": "it did not start"}
        if setting.slow_server:  # until the node has called, or the pod has been running for a while
            await asyncio.sleep(4)
        begun = time.monotonic()
        await asyncio.to_thread(end, here, how, server)
        await until(lambda: _not(runs()), 60, 0.1)
        gone = time.monotonic()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(told.wait(), patience)
        return {
            "told": told.is_set(),
            "seconds": round(max(0.0, said["at"] - gone), 2) if said else patience,
            "seconds_from_the_order": round(said["at"] - begun, 2) if said else None,
            "message": str(said.get("message", ""))[:200],
        }
    finally:
        told.set()
        following.cancel()
        await client.stop(server, 5)
        asking.cancel()


async def _not(condition: Any) -> bool:
    return not await condition


async def one(
    here: Stage, contender: Contender, how: str, setting: Setting, chosen: argparse.Namespace
) -> dict[str, Any]:
    label = f"-{how}-{'before' if setting.slow_node else 'after'}"
    async with here.hub(contender, label) as (_, client):
        names = [f"d{number}" for number in range(chosen.repeats)]
        deaths = await asyncio.gather(
            *(death(here, client, how, setting, name, chosen.patience) for name in names), return_exceptions=True
        )
    found: list[dict[str, Any]] = [{"fault": repr(d)} if isinstance(d, BaseException) else d for d in deaths]
    result = {
        "told": sum(bool(d.get("told")) for d in found),
        "seconds": report.spread([d["seconds"] for d in found if "seconds" in d]),
        "messages": sorted({d["message"] for d in found if d.get("message")}),
        "faults": [d["fault"] for d in found if "fault" in d],
        "deaths": found,
    }
    report.say({k: v for k, v in result.items() if k != "deaths"})
    return result


async def measure(chosen: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    results: dict[str, Any] = {}
    own = []
    with stage(chosen.target, chosen.only, nodes=4) as here:
        for kind, cases in CASES.items():
            for how, setting in cases:
                for contender in here.contenders(setting):
                    if contender.kind != kind:
                        continue
                    when = "before its call" if setting.slow_node else "before it answers"
                    place = results.setdefault(kind, {}).setdefault(f"{how}, {when}", {})
                    if contender.missing:
                        place[contender.name] = {"not run": contender.missing}
                        continue
                    place[contender.name] = await one(here, contender, how, setting, chosen)
                    if contender.name == "oberalp":
                        own.append(place[contender.name])
    holds = bool(own) and all(c["told"] == chosen.repeats and c["seconds"]["max"] <= 3 for c in own)
    return holds, results


def main() -> int:
    chosen = report.arguments("death_to_message", __doc__, options)
    if chosen.smoke:
        chosen.repeats, chosen.patience = 1, 15
    return report.run(chosen, CLAIM, lambda: measure(chosen))


if __name__ == "__main__":
    sys.exit(main())
