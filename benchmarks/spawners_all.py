"""Run all benchmarks of the spawners, one after another, and say which claims hold.

    python -m benchmarks.spawners_all [--smoke] [NAME ...]

They need root, Slurm's packages, $KUBECONFIG for the Kubernetes parts, $OBERALP_WRAPSPAWNER for wrapspawner (else that
contender is left out), and a quiet machine. At full size: about an hour and a half.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from benchmarks.spawners.report import RESULTS

NAMES = (
    "cancelled_starts",
    "hub_kills",
    "scheduler_outage",
    "scheduler_calls",
    "start_overhead",
    "hub_scale",
    "death_to_message",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all when absent")
    parser.add_argument("--smoke", action="store_true", help="small sizes: only that they run")
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.names) - set(NAMES)):
        parser.error(f"no benchmark named {', '.join(unknown)}")
    failed = []
    for name in chosen.names or NAMES:
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *(["--smoke"] if chosen.smoke else [])])
        if done.returncode:
            failed.append(name)
    for name in chosen.names or NAMES:
        path = RESULTS / (f"{name}-smoke.json" if chosen.smoke else f"{name}.json")
        verdict = "no result"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            verdict = (
                f"{'holds' if result['holds'] else 'does not hold'} ({result['seconds']:.0f} s): {result['claim']}"
            )
        print(f"{name:18} {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
