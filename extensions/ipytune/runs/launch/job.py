"""Inside a job, before training: `python -m ipytune.runs.launch.job RUN_DIR [--config FILE] [--train N]`.

- Makes the run directory from a configuration (an exported one: the job is then all there is), or checks that the one
  that is there continues the same run.
- Writes down which job runs it, from what the scheduler tells the job about itself.
- --train N becomes the trainer, in the same process: the scheduler's signals reach it, its output goes to train.log.

Exit status: 0 when training may begin, 3 when the run is complete and nothing is left to train, 1 with a message when
it may not, 2 for wrong arguments. No torch import.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from ipytune import heap, openmp
from ipytune.lora.config import ConfigError, RunConfig
from ipytune.runs.directory import STOP, RunDirectory
from ipytune.runs.launch import commands
from ipytune.runs.launch.base import InKubernetes, InSlurm, write_launched
from ipytune.runs.launch.manifest import JOB_VARIABLE, NAMESPACE_VARIABLE
from ipytune.runs.process import prepare

COMPLETE = 3


def this_job(environment: Mapping[str, str]) -> InSlurm | InKubernetes | None:
    """The job that this process is in; None outside of one."""
    if environment.get(JOB_VARIABLE) and environment.get(NAMESPACE_VARIABLE):
        return InKubernetes(job=environment[JOB_VARIABLE], namespace=environment[NAMESPACE_VARIABLE])
    if environment.get("SLURM_JOB_ID"):
        return InSlurm(job=environment["SLURM_JOB_ID"], cluster=environment.get("SLURM_CLUSTER_NAME"))
    return None


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ipytune.runs.launch.job", description="Begin a run inside a job.")
    parser.add_argument("run_dir")
    parser.add_argument("--config", help="make the run directory from this file, or continue the same run")
    parser.add_argument("--train", type=int, metavar="N", help="then train, with N processes on this machine")
    given = parser.parse_args(arguments)
    directory = RunDirectory(given.run_dir)
    try:
        if given.config is not None:
            if not prepare(RunConfig.from_yaml(given.config), directory, resume=directory.exists):
                print(f"The run in {directory.path} is complete.")
                return COMPLETE
        elif not directory.exists:
            raise ValueError(f"{directory.path} holds no run (no config.yaml). Name one with --config.")
    except (ConfigError, OSError, ValueError) as error:
        print(f"ipytune: {error}", file=sys.stderr)
        return 1
    directory.done(STOP)  # of an earlier job, that came too late for it
    write_launched(directory, this_job(os.environ))
    if given.train is None:
        return 0
    return _become(commands.trainer(sys.executable, str(directory.path), max(1, given.train)), directory)


def _become(command: list[str], directory: RunDirectory) -> int:
    print(f"The training process writes to {directory.log}", flush=True)
    log = os.open(directory.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    environment = {**commands.TORCHRUN_ENVIRONMENT, **os.environ, "PYTHONUNBUFFERED": "1"}
    openmp.spin_briefly(environment)
    heap.use_large_pages(environment)
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
