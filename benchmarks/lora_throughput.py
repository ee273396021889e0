"""Claim: on a CPU ipytune's loop trains at least 2.0 times as fast as TRL tuned, and 5 times as fast as its default.

    python -m benchmarks.lora_throughput [--model NAME ...] [--steps N] [--smoke]

The same conversations and the same model for every contender, each in a process of its own, one after another. Real
tokens a second (padding is not counted) by the wall clock, from the end of the warm-up steps to the end of the last
one; peak memory; seconds from the start of the process to the end of the first step; the losses. On a machine whose
speed changes with its neighbours', `--rounds 3` measures them in turn and takes medians. `TRL tuned` is the faster of
its settings that are tried here (see benchmarks/lora/trainers.py). On a GPU the claim is 1.5 times TRL tuned.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.lora.trainers import CONTENDERS
from benchmarks.lora.workload import MODELS, model_directory, write_conversations
from benchmarks.spawners.report import RESULTS, hardware, say
from ipytune import heap
from ipytune.openmp import spin_briefly

ROOT = Path(__file__).parents[1]
TUNED = ("trl-tuned", "trl-tuned-bf16")
OVER = {"cpu": {"tuned": 2.0, "default": 5.0}, "cuda": {"tuned": 1.5, "default": 0.0}}
HOPPER = 400e12  # FLOP/s that good trainers reach on one H100 or H200 in bfloat16
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers")


def measure(contender: str, spec: dict[str, Any], folder: Path, warm_up: int) -> dict[str, Any]:
    path, output, log = folder / "spec.json", folder / f"{contender}.json", folder / f"{contender}.log"
    output.unlink(missing_ok=True)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    paths = [str(Path(each).absolute()) for entry in paths for each in entry.split(os.pathsep) if each]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    spin_briefly(environment)  # ours does by itself: on a machine that is not quiet most of the difference without it
    if contender.startswith("ours"):
        heap.use_large_pages(environment)  # as our launchers do
    load, before = os.getloadavg()[0], _processor()
    path.write_text(
        json.dumps({**spec, "contender": contender, "output": str(output), "began": time.monotonic()}), encoding="utf-8"
    )
    with log.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.lora.trainers", str(path)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
        )
    if done.returncode or not output.exists():
        return {"not run": log.read_text(errors="replace").strip().splitlines()[-1:] or [f"exit {done.returncode}"]}
    found = json.loads(output.read_text(encoding="utf-8"))
    stolen, total = (after - earlier for after, earlier in zip(_processor(), before, strict=True))
    share = round(stolen / total, 3) if total else None
    return {**rates(found.pop("steps"), warm_up), **found, "load_average_before": load, "stolen": share}


def _processor() -> tuple[int, int]:
    """Ticks that the host of a virtual machine gave to others, and all ticks; over a few percent spoils times."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return 0, 0
    return ticks[7], sum(ticks)


def rates(steps: list[dict[str, Any]], warm_up: int) -> dict[str, Any]:
    """Of steps with the second at which each ended, its tokens and its loss; the first `warm_up` are not counted."""
    ends = [step["ended"] for step in steps]
    tokens = sum(step["tokens"] for step in steps[warm_up:])
    took = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    counted = list(zip(steps[warm_up:], took[warm_up - 1 :], strict=True))
    return {
        "tokens_per_second": round(tokens / (ends[-1] - ends[warm_up - 1]), 1),
        "fastest_step": round(max(step["tokens"] / seconds for step, seconds in counted), 1),
        "seconds_to_first_step": round(ends[0], 2),
        "step_seconds": [round(seconds, 2) for seconds in took],
        "step_tokens": [round(step["tokens"]) for step in steps],
        "losses": [round(step["loss"], 4) for step in steps],
    }


def pooled(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One contender's rounds as one result: the median of their speeds, the highest of their peaks, and all of them.

    Beside these only what all rounds agree on: the seconds of each step, or what the host took, are in `rounds`.
    """
    if len(rounds) == 1:
        return rounds[0]
    ran = [found for found in rounds if "tokens_per_second" in found]
    if not ran:
        return {**rounds[-1], "rounds": rounds}
    return {
        **{key: value for key, value in ran[0].items() if all(found.get(key) == value for found in ran)},
        "tokens_per_second": statistics.median([found["tokens_per_second"] for found in ran]),
        "fastest_step": max(found["fastest_step"] for found in ran),
        "peak_memory_bytes": max(found["peak_memory_bytes"] for found in ran),
        "rounds": rounds,
    }


def compare(results: dict[str, Any]) -> dict[str, float]:
    """How many times as fast as each other contender ours is."""
    mine = results.get("ours", {}).get("tokens_per_second")
    return {
        name: round(mine / found["tokens_per_second"], 2)
        for name, found in results.items()
        if mine and not name.startswith("ours") and "tokens_per_second" in found
    }


def as_claimed(faster: dict[str, float], device: str) -> bool:
    """False as well when TRL's default or all of its tuned settings did not run."""
    tuned = min((faster[name] for name in TUNED if name in faster), default=0.0)
    return tuned >= OVER[device]["tuned"] and faster.get("trl-default", -1.0) >= OVER[device]["default"]


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="default: lora_throughput.json in benchmarks/results")
    parser.add_argument("--model", nargs="+", default=["smollm2-135m-instruct"], choices=MODELS)
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=2, help="first steps, which are not counted")
    parser.add_argument("--rounds", type=int, default=1, help="each contender so many times, in turn; medians count")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=1024, help="of a conversation; TRL's rows when it packs")
    parser.add_argument("--row-tokens", type=int, default=1024, help="of our rows")
    parser.add_argument("--compile", default="auto", choices=["auto", "never", "always"], help="ours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="three steps of two: only that it runs")
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.steps, chosen.warm_up, chosen.batch_size, chosen.model = 3, 1, 2, ["smollm2-135m-instruct"]
    if not 0 < chosen.warm_up < chosen.steps:
        parser.error(f"--warm-up ({chosen.warm_up}) must be at least 1 and less than --steps ({chosen.steps})")
    if chosen.rounds < 1:
        parser.error(f"--rounds ({chosen.rounds}) must be at least 1")
    if chosen.output is None:
        chosen.output = RESULTS / ("lora_throughput-smoke.json" if chosen.smoke else "lora_throughput.json")

    began, load = datetime.now(timezone.utc), os.getloadavg()
    results: dict[str, Any] = {}
    holds, device = True, "cpu"
    with tempfile.TemporaryDirectory(prefix="oberalp-lora-") as name:
        folder = Path(name)
        write_conversations(folder / "train.jsonl", chosen.steps * chosen.batch_size, chosen.seed)
        for model in chosen.model:
            spec = {
                "model": model_directory(model, folder),
                "data": str(folder / "train.jsonl"),
                "folder": name,
                "learning_rate": 2e-4,
                **{key: getattr(chosen, key) for key in ("rank", "batch_size", "steps", "max_length", "row_tokens")},
                **{key: getattr(chosen, key) for key in ("compile", "seed")},
            }
            results[model] = {}
            rounds: dict[str, list[dict[str, Any]]] = {contender: [] for contender in chosen.only}
            for contender in chosen.only * chosen.rounds:
                found = measure(contender, spec, folder, chosen.warm_up)
                rounds[contender].append(found)
                device = found.get("device", device)
                say(model, contender, {k: v for k, v in found.items() if k not in ("losses", "step_tokens")})
            results[model] |= {contender: pooled(measured) for contender, measured in rounds.items()}
            if device == "cuda" and "tokens_per_second" in (mine := results[model].get("ours", {})):
                mine["of_400_tflops"] = round(mine["tokens_per_second"] * 4 * mine["parameters"] / HOPPER, 3)
            faster = compare(results[model])
            results[model]["times_as_fast"] = faster
            holds = holds and as_claimed(faster, device)
            say(model, "times as fast as", faster)
    over = OVER[device]
    result = {
        "claim": f"at least {over['tuned']} times TRL tuned and {over['default']:g} times its default (real tokens/s)",
        "holds": holds,
        "smoke": chosen.smoke,
        "measured_at": began.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(timezone.utc) - began).total_seconds(), 1),
        "parameters": {k: v for k, v in vars(chosen).items() if k not in ("output", "smoke")},
        "models": results,
        "load_average": {"before": load, "after": os.getloadavg()},
        "hardware": hardware(),
        "versions": versions(),
    }
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(result["claim"], "holds" if holds else "does not hold")
    return 0 if holds or chosen.smoke else 1


if __name__ == "__main__":
    sys.exit(main())
