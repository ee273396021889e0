"""All tests, in two streams side by side: `python -m tests [pytest's options]`.

What uses clusters and hubs mostly waits, and must not meet itself on the one Kubernetes; what computes, the panels in a
browser, and what brings a hub and a Slurm of its own run beside it at a lower priority. The second stream's output
follows the first one's.

The streams share the processors, and time limits of real programs are real: up to FEW tests that fail are run once more
by themselves. What passes then is named at the end as unsteady, to be looked into. Exit status 1 if a test fails twice,
or more than FEW fail.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FEW = 5
WITH_THEIR_OWN = ("test_engine.py", "test_lease.py", "test_slurm_failures.py")  # hub and Slurm; no Kubernetes
WAITING = (
    "tests/clusters",
    *(
        f"tests/hub/{path.name}"
        for path in sorted((ROOT / "tests/hub").glob("test_*.py"))
        if path.name not in WITH_THEIR_OWN
    ),
    "tests/browser/test_spawn_page.py",
    "tests/images",
    "tests/hybridspawner/test_slurm_clients.py",
    "tests/ipytune/runs/test_launch_slurm.py",
    "tests/ipytune/batch/test_batch_kubernetes.py",
)
COMPUTING = ("tests", *(f"--ignore={path}" for path in WAITING))


def command(name: str, *arguments: str) -> list[str]:
    """pytest with what it remembers of its failures apart from the other stream's."""
    memory = ROOT / ".pytest_cache" / name
    return [sys.executable, "-m", "pytest", "-o", f"cache_dir={memory}", "--durations=25", *sys.argv[1:], *arguments]


def failed(name: str) -> list[str]:
    """The tests that failed in the last run of a stream."""
    memory = ROOT / ".pytest_cache" / name / "v" / "cache" / "lastfailed"
    return sorted(json.loads(memory.read_text())) if memory.exists() else []


def once_more(name: str, returned: int, paths: tuple[str, ...]) -> tuple[int, list[str]]:
    """A stream's exit status after its few failures, if that is all that is wrong, were tried again; which passed."""
    tests = failed(name)
    if returned != 1 or not 0 < len(tests) <= FEW:
        return returned, []
    print(f"\nOnce more, by themselves: {', '.join(tests)}\n", flush=True)
    again = command(name, "--last-failed", "--last-failed-no-failures=none", *paths)
    returned = subprocess.run(again, cwd=ROOT, check=False).returncode
    return returned, sorted(set(tests) - set(failed(name)))


def main() -> int:
    with tempfile.TemporaryFile() as output:
        computing = subprocess.Popen(
            command("computing", "--cache-clear", *COMPUTING),
            cwd=ROOT,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: os.nice(5),
        )
        try:
            first = command("waiting", "--cache-clear", *WAITING)
            waited = subprocess.run(first, cwd=ROOT, check=False).returncode
            computed = computing.wait()
        finally:
            if computing.poll() is None:
                computing.terminate()
                computing.wait()
        output.seek(0)
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    waited, unsteady = once_more("waiting", waited, WAITING)
    computed, also = once_more("computing", computed, COMPUTING)
    if unsteady or also:
        print(f"\nUnsteady: failed beside the others, passed alone: {', '.join(unsteady + also)}", flush=True)
    return 1 if waited or computed else 0


if __name__ == "__main__":
    sys.exit(main())
