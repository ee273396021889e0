"""Claim: three minutes of training on two CPU cores teach SmolLM2-135M-Instruct the first task (95 % exact match).

    python benchmarks/first_task.py [--output benchmarks/results/first_task.json] [--limit N]

Measures the base model, trains it with the shipped configuration in a process of its own, measures again on the same
held-out requests, and writes one JSON with what was measured, on what, and how loaded the machine was. Exit status 1 if
the claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from ipytune.evaluate.exact import ExactMatch, exact_match
from ipytune.lora.config import RunConfig
from ipytune.runs import Run, Status

CLAIMED_SHARE, CLAIMED_SECONDS = 0.95, 180.0


def measured(result: ExactMatch) -> dict[str, object]:
    return {
        "exact_match": round(result.share, 4),
        "right": result.right,
        "n": result.n,
        "seconds": round(result.seconds, 1),
        "mistakes": [vars(mistake) for mistake in result.mistakes[:5]],
    }


def show(status: Status) -> None:
    print(f"\r{status.phase} {status.step}/{status.total_steps or '?'} loss {status.loss}", end="", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "first_task.json")
    parser.add_argument("--limit", type=int, default=None, help="only so many of the held-out requests")
    arguments = parser.parse_args()

    config = RunConfig.first_task()
    assert config.eval_file is not None
    before = exact_match(config.eval_file, config.model, limit=arguments.limit)
    print(before, file=sys.stderr)
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        run = Run.start(config, Path(folder) / "run")
        report = run.wait(on_status=show)
        load_after = os.getloadavg()
        after = exact_match(config.eval_file, config.model, run.adapter, limit=arguments.limit)
    print(f"\n{after}", file=sys.stderr)

    claim = after.share >= CLAIMED_SHARE and report["training_seconds"] <= CLAIMED_SECONDS
    result = {
        "claim": f"exact match of at least {CLAIMED_SHARE:.0%} after at most {CLAIMED_SECONDS:.0f} s of training",
        "holds": claim,
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "before": measured(before),
        "after": measured(after),
        "training_seconds": report["training_seconds"],
        "seconds_to_first_step": report["seconds_to_first_step"],
        "tokens": report["tokens"],
        "tokens_per_second": report["tokens_per_second"],
        "steps": report["step"],
        "loss": report["loss"],
        "eval_loss": report["eval_loss"],
        "peak_memory_bytes": report["peak_memory_bytes"],
        "trainable_parameters": report["trainable_parameters"],
        "dtype": report["dtype"],
        "load_average": {"before_training": load_before, "after_training": load_after},
        "config": config.model_dump(mode="json", exclude={"train_file", "eval_file"}),
        "hardware": report["hardware"],
        "versions": report["versions"],
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if claim else 1


if __name__ == "__main__":
    sys.exit(main())
