"""The form of a result: one JSON with the claim, what was measured on what, and how loaded the machine was."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
LIGHT = "sessions are light_server.py, not JupyterLab: hundreds of those do not fit this machine"
_PACKAGES = ("jupyterhub", "batchspawner", "jupyterhub-kubespawner", "kubernetes-asyncio", "tornado", "httpx")


def arguments(
    name: str, documentation: str | None, add: Callable[[argparse.ArgumentParser], None]
) -> argparse.Namespace:
    """What every benchmark takes, and what `add` adds."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help=f"default: {name}.json in benchmarks/results")
    parser.add_argument(
        "--smoke", action="store_true", help="small sizes, to see that it runs; the claim is not tested"
    )
    parser.add_argument("--only", action="append", default=[], metavar="CONTENDER", help="oberalp, batchspawner, ...")
    add(parser)
    chosen = parser.parse_args()
    if chosen.output is None:
        chosen.output = RESULTS / (f"{name}-smoke.json" if chosen.smoke else f"{name}.json")
    return chosen


def run(
    chosen: argparse.Namespace,
    claim: str,
    measure: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]],
    remark: str = LIGHT,
) -> int:
    """Write what `measure` gives: whether the claim holds, and the results. Exit status 1 if it does not."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that clusters and hubs end with it
    before, began = os.getloadavg(), datetime.now(timezone.utc)
    holds, results = asyncio.run(_measured(measure))
    ended = datetime.now(timezone.utc)
    result = {
        "claim": claim,
        "holds": holds,
        "smoke": chosen.smoke,
        "measured_at": began.isoformat(timespec="seconds"),
        "seconds": round((ended - began).total_seconds(), 1),
        "parameters": {k: v for k, v in vars(chosen).items() if k not in ("output", "smoke")},
        "remark": remark,
        "contenders": results,
        "load_average": {"before": before, "after": os.getloadavg()},
        "hardware": hardware(),
        "versions": versions(),
    }
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")
    print(f"{claim}: {'holds' if holds else 'does not hold'}; {chosen.output}", file=sys.stderr)
    return 0 if holds or chosen.smoke else 1


async def _measured(measure: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]) -> tuple[bool, dict[str, Any]]:
    return await measure()


def say(*words: object) -> None:
    """To the person who waits."""
    print(datetime.now().strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


def hardware() -> dict[str, Any]:
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory[1]) * 1024 if memory else None,
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    wrapspawner = os.environ.get("OBERALP_WRAPSPAWNER", "")
    for info in Path(wrapspawner).glob("wrapspawner-*.dist-info") if wrapspawner else ():
        found["wrapspawner"] = info.name.removeprefix("wrapspawner-").removesuffix(".dist-info")
    try:
        found["slurm"] = subprocess.run(
            ["sinfo", "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    return found


def spread(seconds: list[float]) -> dict[str, float | int | None]:
    """n, median, p95 and maximum of times, rounded to milliseconds."""
    if not seconds:
        return {"n": 0, "median": None, "p95": None, "max": None}
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"n": len(ordered), "median": round(median(ordered), 3), "p95": round(p95, 3), "max": round(ordered[-1], 3)}
