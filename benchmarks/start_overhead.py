"""Claim: a session is usable at most 1 s later than its server in a bare job or pod; 100 starts at once do no harm.

    python -m benchmarks.start_overhead [--target slurm|kubernetes|both] [--smoke]

Overhead: from the click to the first answer through the hub's proxy, minus the median of a bare `sbatch` (or pod) of
the same server to its first answer, one after another on an idle cluster. Storm: 100 starts asked for within 5 s on a
cluster that can run 16 of them, while GET /hub/api is timed ten times a second. Stock peers: batchspawner; kubespawner
and wrapspawner.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from statistics import median
from typing import Any

import httpx

from benchmarks.spawners import report
from benchmarks.spawners.client import HubClient, until
from benchmarks.spawners.contenders import LIGHT_SERVER, Contender, Setting
from benchmarks.spawners.stage import Stage, add_targets, stage
from tests.clusters.kubernetes import HOST_IMAGE, host_volumes, pod_manifest

CLAIM = "median overhead of a start at most 1 s; of 100 starts in 5 s none refused, GET /hub/api p95 under 250 ms"


def options(parser: argparse.ArgumentParser) -> None:
    add_targets(parser)
    parser.add_argument("--repeats", type=int, default=10, help="single starts for each contender")
    parser.add_argument("--storm", type=int, default=100, help="starts at once")
    parser.add_argument("--within", type=float, default=5, help="seconds over which they are asked for")
    parser.add_argument("--watch", type=float, default=60, help="seconds for which the hub's API is timed")


# --- the bare job and pod --------------------------------------------------------------------------------------------


async def answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
            return (await http.get(url)).status_code == 200
    except httpx.TransportError:
        return False


async def bare_job(here: Stage, number: int) -> float:
    """Seconds from sbatch to the first answer of the light server in it."""
    assert here.slurm is not None
    port_file = here.directory / f"port-{number}"
    command = f"{sys.executable} {LIGHT_SERVER} --port-file {port_file}"
    argv = ["sbatch", "--parsable", "--gres=gpu:gh200:1", "--output=/dev/null", f"--wrap={command}"]
    began = time.monotonic()
    job = (await asyncio.to_thread(here.slurm.run, *argv)).stdout.strip()

    async def usable() -> bool:
        return port_file.exists() and await answers(f"http://127.0.0.1:{port_file.read_text()}/api")

    assert await until(usable, 60, 0.02), "the bare job's server does not answer"
    took = time.monotonic() - began
    await asyncio.to_thread(here.slurm.run, "scancel", job)
    await until(lambda: _async(here.left("slurm") == 0), 30, 0.2)
    return took


async def bare_pod(here: Stage) -> float:
    """Seconds from the pod's creation to the first answer of the light server in it."""
    assert here.kubernetes is not None
    cluster, namespace = here.kubernetes, here.namespace
    volumes, mounts = host_volumes(str(LIGHT_SERVER.parents[2]))
    environment = [{"name": "JUPYTERHUB_SERVICE_URL", "value": "http://0.0.0.0:8888/"}]
    command = ["/usr/bin/env", sys.executable, str(LIGHT_SERVER)]
    manifest = pod_manifest(HOST_IMAGE, command, volumeMounts=mounts, env=environment)
    manifest["spec"]["volumes"] = volumes
    began = time.monotonic()
    name = await asyncio.to_thread(cluster.create_pod, manifest, namespace)

    async def usable() -> bool:
        address = ((await asyncio.to_thread(cluster.pod, name, namespace)) or {})["status"].get("podIP")
        return bool(address) and await answers(f"http://{address}:8888/api")

    assert await until(usable, 60, 0.02), "the bare pod's server does not answer"
    took = time.monotonic() - began
    await asyncio.to_thread(cluster.delete_pod, name, namespace)
    return took


async def _async(value: bool) -> bool:
    return value


# --- through a hub ---------------------------------------------------------------------------------------------------


async def single(client: HubClient, name: str) -> float | None:
    """Seconds from the click to the first answer through the proxy; None if it did not become usable within 60 s."""
    began = time.monotonic()
    asking = asyncio.create_task(client.start(name))
    # the proxy sends requests of a session that is not there to the hub: ask only once the hub says that it is ready
    usable = await until(lambda: client.is_ready(name), 60, 0.05) and await until(
        lambda: client.reaches(name), 10, 0.02
    )
    took = time.monotonic() - began
    await asking
    await client.stop(name)
    return took if usable else None


async def storm(client: HubClient, chosen: argparse.Namespace) -> dict[str, Any]:
    before = Counter(client.statuses)
    times: list[float] = []
    busy: list[float] = []  # those asked before every start was answered
    ended, answered_all = asyncio.Event(), asyncio.Event()

    async def look(http: httpx.AsyncClient) -> None:
        began, storming = time.monotonic(), not answered_all.is_set()
        try:
            await http.get("/hub/api")
            times.append(time.monotonic() - began)
        except httpx.TransportError:
            times.append(30.0)  # no answer counts as the longest wait, however soon it failed
        if storming:
            busy.append(times[-1])

    async def watch() -> None:  # whether earlier requests have been answered or not, as other users would
        async with httpx.AsyncClient(base_url=client.hub.url, trust_env=False, timeout=30) as http:
            looking = []
            while not ended.is_set():
                looking.append(asyncio.create_task(look(http)))
                await asyncio.sleep(0.1)
            await asyncio.gather(*looking)

    async def ask(number: int) -> None:
        await asyncio.sleep(chosen.within * number / chosen.storm)
        await client.start(f"storm{number}")

    watching = asyncio.create_task(watch())
    began = time.monotonic()
    asking = [asyncio.create_task(ask(number)) for number in range(chosen.storm)]
    await asyncio.gather(*asking, return_exceptions=True)
    answered = time.monotonic() - began
    answered_all.set()
    await asyncio.sleep(max(0.0, chosen.watch - answered))
    servers = await client.servers()
    ended.set()
    await watching
    statuses = Counter(client.statuses) - before
    starts = {str(status): n for (what, status), n in statuses.items() if what == "start"}
    accepted = sum(n for status, n in starts.items() if status in ("201", "202"))
    return {
        "starts": chosen.storm,
        "refused": chosen.storm - accepted,
        "statuses": starts,
        "all_answered_after_seconds": round(answered, 1),
        "on_record_at_the_end": len(servers),
        "ready_at_the_end": sum(server["ready"] for server in servers.values()),
        "get_hub_api_seconds": report.spread(times),
        "get_hub_api_seconds_until_all_answered": report.spread(busy),
    }


async def one(here: Stage, contender: Contender, bare: float, chosen: argparse.Namespace) -> dict[str, Any]:
    async with here.hub(contender) as (_, client):
        if await single(client, "warm-up") is None:
            return {"not run": "its first session did not become usable within 60 s", "errors": client.errors[:3]}
        times = [await single(client, f"one{number}") for number in range(chosen.repeats)]
        usable = [t for t in times if t is not None]
        found: dict[str, Any] = {
            "click_to_usable_seconds": report.spread(usable),
            "not_usable": len(times) - len(usable),
            "overhead_median_seconds": round(median(usable) - bare, 3) if usable else None,
        }
        report.say(found)
        found["storm"] = await storm(client, chosen)
        report.say(found["storm"])
        asked = [client.stop(name, 1) for name in await client.servers()]
        await asyncio.gather(*asked, return_exceptions=True)
    return found


async def measure(chosen: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    results: dict[str, Any] = {}
    own = []
    with stage(chosen.target, chosen.only) as here:
        medians: dict[str, float] = {}
        for kind in ("slurm", "kubernetes"):
            if kind == "slurm" and here.slurm is not None:
                times = [await bare_job(here, number) for number in range(chosen.repeats)]
            elif kind == "kubernetes" and here.kubernetes is not None:
                times = [await bare_pod(here) for _ in range(chosen.repeats)]
            else:
                continue
            medians[kind] = median(times)
            results[kind] = {"bare_seconds": report.spread(times)}
            report.say(kind, "bare", results[kind])
        for contender in here.contenders(Setting(pod_cpus=0.08)):
            if contender.missing:
                results[contender.kind][contender.name] = {"not run": contender.missing}
                continue
            found = await one(here, contender, medians[contender.kind], chosen)
            results[contender.kind][contender.name] = found
            if contender.name == "oberalp":
                own.append(found)
    holds = bool(own) and all(
        found.get("overhead_median_seconds") is not None
        and found["overhead_median_seconds"] <= 1
        and found["storm"]["refused"] == 0
        and found["storm"]["get_hub_api_seconds"]["p95"] < 0.25
        for found in own
    )
    return holds, results


def main() -> int:
    chosen = report.arguments("start_overhead", __doc__, options)
    if chosen.smoke:
        chosen.repeats, chosen.storm, chosen.within, chosen.watch = 2, 10, 1, 12
    return report.run(chosen, CLAIM, lambda: measure(chosen))


if __name__ == "__main__":
    sys.exit(main())
