"""All tests, in two streams side by side: `python -m tests [pytest's options]`.

What uses clusters, hubs and browsers mostly waits, and must not meet itself on the one cluster; what computes runs
beside it at a lower priority. The second stream's output follows the first one's. Exit status 1 if either fails.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

WAITING = (
    "tests/clusters",
    "tests/hub",
    "tests/browser",
    "tests/images",
    "tests/hybridspawner/test_slurm_clients.py",
    "tests/ipytune/runs/test_launch_slurm.py",
)
ROOT = Path(__file__).parents[1]


def main() -> int:
    pytest = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    ignored = [f"--ignore={path}" for path in WAITING]
    with tempfile.TemporaryFile() as output:
        computing = subprocess.Popen(
            [*pytest, "tests", *ignored], cwd=ROOT, stdout=output, stderr=output, preexec_fn=lambda: os.nice(5)
        )
        try:
            waited = subprocess.run([*pytest, *WAITING], cwd=ROOT, check=False).returncode
            computed = computing.wait()
        finally:
            if computing.poll() is None:
                computing.terminate()
                computing.wait()
        output.seek(0)
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    return 1 if waited or computed else 0


if __name__ == "__main__":
    sys.exit(main())
