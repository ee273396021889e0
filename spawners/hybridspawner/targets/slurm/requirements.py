"""What a request needs of Slurm, as batchspawner's `req_*` values: the one place that turns a launch into them."""

from __future__ import annotations

from ...request import account_of, partition_of
from ...site import SlurmTarget
from ..base import Launch


def requirements(spec: SlurmTarget, launch: Launch) -> dict[str, str]:
    """Values by the name of their trait without `req_`; what is left to the site's configuration is absent."""
    resources, request = launch.resources, launch.request
    kind = f":{resources.gpu_type}" if resources.gpu_type else ""
    values = {
        "nodes": str(resources.nodes),
        "nprocs": str(resources.cpus),
        "memory": f"{round(resources.memory_gb * 1000 / 1.048576)}M",  # Slurm's M is 1024^2 bytes
        "runtime": request.runtime,
        "gres": f"{spec.gres}{kind}:{resources.gpus}" if resources.gpus else None,
        "partition": partition_of(request, spec),
        "account": account_of(request, spec),
        "reservation": request.reservation,
    }
    return {name: value for name, value in values.items() if value is not None}


def estimate_variables(spec: SlurmTarget, launch: Launch) -> dict[str, str]:
    """Variables of the job script that matter to the scheduler; the rest is empty, since nothing is to run.

    The site file's traits count as they do for a session; c.SlurmSpawner.* of jupyterhub_config.py is not known here.
    """
    empty = ("log", "account", "partition", "reservation", "qos", "cluster", "nodes", "runtime", "nprocs", "memory")
    variables = dict.fromkeys((*empty, "gres", "options", "prologue", "srun", "epilogue"), "")
    variables |= {"job_name": "estimate", "log": "/dev/null", "cmd": "true"} | requirements(spec, launch)
    for traits in (spec.traits, launch.realisation.traits):
        variables |= {k.removeprefix("req_"): str(v) for k, v in traits.items() if k.startswith("req_")}
    return {**variables, "prologue": "", "srun": "", "cmd": "true", "epilogue": "", "log": "/dev/null"}
