"""Claim: on a CPU ipytune's loop trains at least 2.0 times as fast as TRL tuned, and 5 times as fast as its default.

    python benchmarks/lora_throughput.py [--model NAME ...] [--steps N] [--smoke]

The same ragged chat data and the same model for every contender, each in a process of its own, one after another. Real
tokens a second (padding is not counted) over all steps but the first two, peak memory, seconds to the end of the first
step, and the losses. TRL is not among our dependencies; without it those contenders are left out:

    pip install --target DIR --no-deps trl==1.16.0 accelerate datasets ... && export OBERALP_TRL=DIR
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.lora.trainers import CONTENDERS
from benchmarks.lora.workload import MODELS, model_directory, write_conversations
from benchmarks.spawners.report import hardware, say

ROOT = Path(__file__).parents[1]
SKIPPED = 2  # first steps, which allocate and warm up
OVER_TUNED, OVER_DEFAULT = 2.0, 5.0
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "ipytune")


def measure(contender: str, spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    path, output = folder / "spec.json", folder / f"{contender}.json"
    output.unlink(missing_ok=True)
    path.write_text(json.dumps({**spec, "contender": contender, "output": str(output)}), encoding="utf-8")
    extra = [os.environ["OBERALP_TRL"]] if os.environ.get("OBERALP_TRL") else []
    paths = [str(ROOT), *extra, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    log = folder / f"{contender}.log"
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
    counted = found["steps"][SKIPPED:]
    seconds, tokens = sum(step["seconds"] for step in counted), sum(step["tokens"] for step in counted)
    found["tokens_per_second"] = round(tokens / seconds, 1)
    found["losses"] = [round(step["loss"], 4) for step in found.pop("steps")]
    return found


def compare(results: dict[str, Any]) -> dict[str, float]:
    mine = results["ours"].get("tokens_per_second")
    return {
        name: round(mine / found["tokens_per_second"], 2)
        for name, found in results.items()
        if mine and name != "ours" and "tokens_per_second" in found
    }


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            for info in Path(os.environ.get("OBERALP_TRL", "/nowhere")).glob(f"{name}-*.dist-info"):
                found[name] = info.name.removeprefix(f"{name}-").removesuffix(".dist-info")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "lora_throughput.json")
    parser.add_argument("--model", nargs="+", default=["smollm2-135m-instruct", "qwen3-0.6b"], choices=MODELS)
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--row-tokens", type=int, default=1024, help="of our rows")
    parser.add_argument("--compile", default="auto", choices=["auto", "never", "always"], help="ours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="four steps of three: only that it runs")
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.steps, chosen.batch_size, chosen.model = 4, 3, ["smollm2-135m-instruct"]

    began, load = datetime.now(timezone.utc), os.getloadavg()
    results: dict[str, Any] = {}
    holds = True
    with tempfile.TemporaryDirectory(prefix="oberalp-lora-") as name:
        folder = Path(name)
        write_conversations(folder / "train.jsonl", chosen.steps * chosen.batch_size * 4, chosen.seed)
        for model in chosen.model:
            spec = {
                "model": model_directory(model, folder),
                "data": str(folder / "train.jsonl"),
                "folder": name,
                "rank": chosen.rank,
                "learning_rate": 2e-4,
                "batch_size": chosen.batch_size,
                "mean_tokens": 220,
                "steps": chosen.steps,
                "max_length": 1024,
                "row_tokens": chosen.row_tokens,
                "compile": chosen.compile,
            }
            results[model] = {}
            for contender in chosen.only:
                results[model][contender] = measure(contender, spec, folder)
                say(model, contender, {k: v for k, v in results[model][contender].items() if k != "losses"})
            if "ours" in results[model]:
                faster = results[model]["times_as_fast"] = compare(results[model])
                holds &= faster.get("trl-tuned", 0) >= OVER_TUNED and faster.get("trl-default", 0) >= OVER_DEFAULT
    result = {
        "claim": f"at least {OVER_TUNED} times TRL tuned and {OVER_DEFAULT:g} times its default (real tokens a second)",
        "holds": holds,
        "smoke": chosen.smoke,
        "measured_at": began.isoformat(timespec="seconds"),
        "parameters": {k: v for k, v in vars(chosen).items() if k not in ("output", "smoke")},
        "models": results,
        "load_average": {"before": load, "after": os.getloadavg()},
        "hardware": hardware(),
        "versions": versions(),
    }
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if holds or chosen.smoke else 1


if __name__ == "__main__":
    sys.exit(main())
