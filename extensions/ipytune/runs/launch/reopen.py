"""The handle of a run that somebody started: from its directory alone, in any process."""

from __future__ import annotations

from ipytune.runs.directory import RunDirectory
from ipytune.runs.launch.base import Handle, InKubernetes, InSlurm, read_launched
from ipytune.runs.launch.kubernetes import KubernetesHandle
from ipytune.runs.launch.session import ProcessHandle
from ipytune.runs.launch.slurm import SlurmHandle


def reopen(directory: RunDirectory) -> Handle:
    launched = read_launched(directory)
    if isinstance(launched, InSlurm):
        return SlurmHandle(directory, launched)
    if isinstance(launched, InKubernetes):
        return KubernetesHandle(directory, launched)
    return ProcessHandle(directory)
