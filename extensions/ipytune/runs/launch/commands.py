"""The command lines of the training process, as lists. Pure."""

from __future__ import annotations

TRAINER = "ipytune.lora.train"


def trainer(python: str, run_dir: str, processes: int = 1) -> list[str]:
    """One process, or torchrun with several on this machine: on its GPUs, or with gloo on its cores.

    --standalone: a free port of its own, so that two runs on one machine do not meet.
    """
    if processes == 1:
        return [python, "-m", TRAINER, run_dir]
    torchrun = [python, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*torchrun, "--max-restarts=0", "-m", TRAINER, run_dir]


# torchrun ends its processes 30 s after a SIGTERM unless told otherwise: too soon for the checkpoint of a large run.
TORCHRUN_ENVIRONMENT = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "110"}
