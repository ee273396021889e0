"""What a scheduler is asked for, as validated models: whatever passes here may be written into a job script.

Promises: a value is a number or one word of a strict pattern; it cannot end a line, open a comment, become an option or
be read by a shell. An unknown field or a wrong value is an error that names the field and what is allowed.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

NOTICE_SECONDS = 120
"""Before the walltime: time for the step at hand, a checkpoint and the adapter."""


def _matching(pattern: str, allowed: str) -> AfterValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(f"{text[:60]!r} is not allowed: {allowed}")
        return text

    return AfterValidator(check)


_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@+:-]*"
SlurmName = Annotated[
    str, _matching(rf"{_NAME}(,{_NAME})*", "letters, digits and . _ @ + : -, several names with commas between them")
]
Walltime = Annotated[
    str, _matching(r"(\d{1,2}-[0-2]\d|\d{1,3}):[0-5]\d:[0-5]\d", "write HH:MM:SS, or D-HH:MM:SS for days")
]
SlurmMemory = Annotated[str, _matching(r"[1-9]\d{0,8}[KMGT]?", "a number with K, M, G or T, such as 120G")]
DnsName = Annotated[
    str, _matching(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "lower-case letters, digits and -, at most 63")
]
Image = Annotated[
    str, _matching(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,400}", "an image such as registry.example.org/team/ipytune:1")
]
Quantity = Annotated[
    str, _matching(r"[1-9]\d{0,8}(\.\d+)?(m|k|[KMGT]i?)?", "a Kubernetes quantity such as 8, 500m or 64Gi")
]
Resource = Annotated[str, _matching(r"[a-z0-9.-]+/[A-Za-z0-9._-]+", "a resource name such as nvidia.com/gpu")]
MountPath = Annotated[str, _matching(r"/[\w.@+-][\w.@+/-]*", "an absolute path of letters, digits and . _ @ + - /")]


def seconds(walltime: str) -> int:
    """>>> seconds("01:30:00"), seconds("1-00:00:00")
    (5400, 86400)
    """
    days, _, clock = walltime.rpartition("-")
    hours, minutes, rest = (int(part) for part in clock.split(":"))
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + rest


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    walltime: Walltime = "01:00:00"
    """Two minutes before it ends the run is asked to stop: it keeps its checkpoint and can be continued."""

    @field_validator("walltime")
    @classmethod
    def _long_enough(cls, walltime: str) -> str:
        if seconds(walltime) < 300:
            raise ValueError(
                f"{walltime} is under five minutes, of which {NOTICE_SECONDS} s are for the last checkpoint"
            )
        return walltime


class SlurmSettings(_Settings):
    """A batch job. What is None is left to the cluster's own defaults."""

    name: SlurmName = "ipytune"
    partition: SlurmName | None = None
    account: SlurmName | None = None
    reservation: SlurmName | None = None
    qos: SlurmName | None = None
    constraint: SlurmName | None = None
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    gpu_type: SlurmName | None = None
    processes_per_node: Annotated[int, Field(ge=1, le=256)] | None = None
    """Training processes on each node; None: one a GPU, or one where there is none."""
    cpus_per_node: Annotated[int, Field(ge=1, le=4096)] | None = None
    memory_per_node: SlurmMemory | None = None
    srun_options: tuple[str, ...] = ()
    """More options for srun, each a word of its own, as `--environment=pytorch` of a container engine."""

    @field_validator("srun_options", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        return tuple(shlex.split(given)) if isinstance(given, str) else given

    @field_validator("srun_options")
    @classmethod
    def _printable(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        for option in options:
            if not option.startswith("-") or not option.isprintable():
                raise ValueError(f"{option[:60]!r} is not allowed: an option of srun on one line, such as --mpi=none")
        return options

    @property
    def processes(self) -> int:
        """Training processes on each node."""
        return self.processes_per_node or max(1, self.gpus_per_node)

    @property
    def gpus(self) -> str | None:
        """For --gpus-per-node: `4` or `gh200:4`."""
        if not self.gpus_per_node:
            return None
        return f"{self.gpu_type}:{self.gpus_per_node}" if self.gpu_type else str(self.gpus_per_node)


class KubernetesSettings(_Settings):
    """A Job of one pod. Its volume holds the run directory, data and models, under the same path as here."""

    image: Image
    """With ipytune and torch in it: the image of the sessions, most simply."""
    claim: DnsName
    """PersistentVolumeClaim that the pod mounts."""
    mount: MountPath = "/data"
    """Where the claim is mounted, in the pod and here: paths below it mean the same in both."""
    namespace: DnsName = "default"
    python: MountPath | None = None
    """The interpreter in the image; None: the `python` on its PATH."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    gpu_resource: Resource = "nvidia.com/gpu"
    processes: Annotated[int, Field(ge=1, le=256)] | None = None
    """Training processes; None: one a GPU, or one where there is none."""
    cpus: Quantity = "4"
    memory: Quantity = "16Gi"
    service_account: DnsName | None = None
    secret: DnsName | None = None
    """A Secret whose entries become environment variables of the trainer: HF_TOKEN, or MLFLOW_TRACKING_URI with its
    token. Nothing of this session's environment goes with the Job: whoever may read pods could read it."""

    @property
    def trainers(self) -> int:
        return self.processes or max(1, self.gpus)
