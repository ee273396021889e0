"""Which variables of a session go with a run that it starts elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from ipytune.runs.launch.ranks import without_ranks

# The session's own identity and its server's keys; and what describes the job it is in itself, which sbatch would take
# for wishes (SLURM_MEM_PER_NODE) or hand on as facts (CUDA_VISIBLE_DEVICES).
_OF_THE_SESSION = ("JUPYTERHUB_", "JPY_", "SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_", "OMPI_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"})
_DROPPED = frozenset({"CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "TMPDIR"})


def for_a_job(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment to submit a batch job with: the user's own settings, none of the session's."""
    return {
        name: value
        for name, value in without_ranks(environment).items()
        if name in _KEPT or not (name in _DROPPED or name.startswith(_OF_THE_SESSION))
    }
