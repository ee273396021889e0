"""Run one Slurm command as the user it is started as: the only thing that sudo has to allow.

Started as `sudo -n -H -u USER -- PYTHON -I launcher.py`, it reads one JSON object from stdin, so that nothing of a job
(script, environment, secrets) is ever on a command line, and no shell sees it:

    {"argv": ["sbatch", "--parsable", ...], "environment": {...}, "stdin": "...", "timeout": 30}   run a command
    {"tail": "/path/of/a/log", "bytes": 8192}                                         the end of a file

It prints the command's output and ends with its exit status. Standard library only: it runs on the hub's machine with
any Python >= 3.9. The environment of the command is what sudo gave, plus `environment`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

COMMANDS = ("sbatch", "scancel", "squeue", "scontrol", "sacct", "sinfo")


def main() -> int:
    request = json.load(sys.stdin)
    if "tail" in request:
        with Path(request["tail"]).open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - int(request["bytes"])))
            sys.stdout.buffer.write(log.read())
        return 0
    argv = [str(word) for word in request["argv"]]
    if Path(argv[0]).name not in COMMANDS:
        print(f"{argv[0]} is not one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 126
    environment = {**os.environ, **request.get("environment", {})}
    # Slurm's commands take options from the environment too; only what is on the command line and in the script counts
    environment = {
        k: v for k, v in environment.items() if not k.startswith(("SBATCH_", "SQUEUE_", "SINFO_", "SALLOC_"))
    }
    program = shutil.which(argv[0], path=environment.get("PATH"))
    if program is None:
        print(f"{argv[0]}: command not found", file=sys.stderr)
        return 127
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            input=request.get("stdin", "").encode(),
            env=environment,
            timeout=request.get("timeout"),
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"{argv[0]}: socket timed out: no answer in {request['timeout']:g} s", file=sys.stderr)
        return 1
    return done.returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, KeyError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
