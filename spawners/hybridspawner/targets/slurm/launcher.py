"""Run one Slurm command as the user it is started as: the only thing that sudo has to allow.

Started as `sudo -n -H -u USER -- PYTHON -I launcher.py`, it reads one JSON object from stdin, so that nothing of a job
(script, environment, secrets) is ever on a command line, and no shell sees it:

    {"argv": ["sbatch", "--parsable", ...], "environment": {...}, "stdin": "...", "before": 1764000030.0}  run a command
    {"tail": "/path/of/a/log", "bytes": 8192}                                                   the end of a file

It prints the command's output and ends with its exit status. Standard library only: it runs on the hub's machine, or
on a login node, with any Python >= 3.9. The environment of the command is what sudo gave, plus `environment`. The
command is looked for in `path`, if there is one, since PATH in `environment` may be a job's.

`before` (seconds since 1970) is the time by which the command must have ended. It is ended then, and not begun
afterwards, so that a request that was held up on its way submits nothing when nobody waits for it any more. A request
that does not arrive within a minute is none.
"""

import json
import os
import signal
import subprocess
import sys
import time

NICE = 5  # a class that starts at once must not take the processor from the hub that serves everybody
COMMANDS = ("sbatch", "scancel", "squeue", "scontrol", "sacct", "sacctmgr", "sinfo", "getent")


def main() -> int:
    signal.alarm(60)
    request = json.load(sys.stdin)
    signal.alarm(0)
    if "tail" in request:
        with open(request["tail"], "rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - int(request["bytes"])))
            sys.stdout.buffer.write(log.read())
        return 0
    argv = [str(word) for word in request["argv"]]
    if os.path.basename(argv[0]) not in COMMANDS:
        print(f"{argv[0]} is not one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 126
    environment = {**os.environ, **request.get("environment", {})}
    # Slurm's commands take options from the environment too; only what is on the command line and in the script counts
    environment = {
        k: v for k, v in environment.items() if not k.startswith(("SBATCH_", "SQUEUE_", "SINFO_", "SALLOC_"))
    }
    program = which(argv[0], request.get("path") or environment.get("PATH") or os.defpath)
    if program is None:
        print(f"{argv[0]}: command not found", file=sys.stderr)
        return 127
    left = float(request["before"]) - time.time() if "before" in request else None
    if left is not None and left <= 0:
        print(f"{argv[0]}: socket timed out {-left:.0f} s before it was begun (do the clocks agree?)", file=sys.stderr)
        return 1
    try:
        done = subprocess.run(
            [program, *argv[1:]], input=request.get("stdin", "").encode(), env=environment, timeout=left, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"{argv[0]}: socket timed out: no answer in {left:.0f} s", file=sys.stderr)
        return 1
    return done.returncode


def which(command: str, path: str) -> "str | None":
    """shutil.which, without its imports: they take as long as all else that this program does."""
    folders = [""] if os.path.dirname(command) else path.split(os.pathsep)
    for found in (os.path.join(folder, command) for folder in folders):
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return found
    return None


if __name__ == "__main__":
    os.nice(NICE)
    try:
        sys.exit(main())
    except (OSError, ValueError, KeyError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
