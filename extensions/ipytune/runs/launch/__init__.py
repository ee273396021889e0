"""Who runs the training process: this session, torchrun on its GPUs, a batch job, a Kubernetes Job.

The run directory is the contract with all of them (`ipytune.runs.directory`); see `base` for what a launcher promises.
"""

from ipytune.runs.launch.base import Handle, Launcher, LaunchError
from ipytune.runs.launch.kubernetes import KubernetesJob
from ipytune.runs.launch.session import Session
from ipytune.runs.launch.settings import KubernetesSettings, SlurmSettings
from ipytune.runs.launch.slurm import Sbatch

__all__ = [
    "Handle",
    "KubernetesJob",
    "KubernetesSettings",
    "LaunchError",
    "Launcher",
    "Sbatch",
    "Session",
    "SlurmSettings",
]
