"""`ipytune export`, and the options of `ipytune train` that say who runs it.

`--on slurm --job partition=debug --job walltime=02:00:00`: the settings have one place (`runs.launch.settings`), where
they are checked and explained; the command line only passes them on by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.text import Text

from ipytune.lora.config import ConfigError, RunConfig, explain
from ipytune.runs.launch import KubernetesJob, KubernetesSettings, Launcher, Sbatch, Session, SlurmSettings


class Where(str, Enum):
    SESSION = "session"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"


class To(str, Enum):
    YAML = "yaml"
    SCRIPT = "script"
    SBATCH = "sbatch"
    KUBERNETES = "kubernetes"


# The launcher options of `train`.
OnOption = Annotated[Where, typer.Option("--on", help="Who runs it: this session, a batch job, a Kubernetes Job.")]
ProcessesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Training processes on each machine. Default: one, or one a GPU that is asked for."),
]
JobOption = Annotated[
    list[str] | None,
    typer.Option("--job", metavar="NAME=VALUE", help="What to ask the scheduler for: partition=debug."),
]


def launcher(on: Where, processes: int | None, job: Sequence[str] | None) -> Launcher:
    """The launcher that the options name; raises ValueError naming the setting that is wrong."""
    if on is Where.SESSION:
        if job:
            raise ValueError(f"--job {job[0]} is for a scheduler. Say which with --on slurm or --on kubernetes.")
        return Session(processes or 1)
    if on is Where.SLURM:
        return Sbatch(slurm_settings(job, processes))
    return KubernetesJob(kubernetes_settings(job, processes))


def export(
    run: Annotated[Path, typer.Argument(help="Directory of a run, or a YAML file with its settings.")],
    to: Annotated[To, typer.Option("--to", help="What to write.")],
    out: Annotated[Path, typer.Option(help="A new folder for it.")],
    job: JobOption = None,
) -> None:
    """Write files that train the same adapter elsewhere."""
    from ipytune.runs.export import export as write

    try:
        slurm = slurm_settings(job) if to is To.SBATCH and job else None
        kubernetes = kubernetes_settings(job) if to is To.KUBERNETES and job else None
        if job and slurm is None and kubernetes is None:
            raise ValueError(f"--job {job[0]} is for --to sbatch and --to kubernetes.")
        source = RunConfig.from_yaml(run) if run.is_file() else run
        main = write(source, to.value, out, slurm=slurm, kubernetes=kubernetes)
    except (ConfigError, OSError, ValueError) as error:
        _fail(str(error))
    Console().print(Text(f"{main}: its first lines say how to run it."), soft_wrap=True)


def slurm_settings(job: Sequence[str] | None, processes: int | None = None) -> SlurmSettings:
    """What `--job` asks of Slurm; raises ValueError naming the setting that is wrong."""
    more = {} if processes is None else {"processes_per_node": processes}
    return _checked(SlurmSettings, {**more, **_pairs(job)})


def kubernetes_settings(job: Sequence[str] | None, processes: int | None = None) -> KubernetesSettings:
    """What `--job` asks of Kubernetes; raises ValueError naming the setting that is wrong."""
    more = {} if processes is None else {"processes": processes}
    return _checked(KubernetesSettings, {**more, **_pairs(job)})


def _pairs(job: Sequence[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for given in job or ():
        name, equals, value = given.partition("=")
        if not equals:
            raise ValueError(f"--job {given}: NAME=VALUE is expected, as in --job partition=debug.")
        pairs[name.strip().replace("-", "_")] = value
    return pairs


def _checked(kind: type[Any], values: dict[str, Any]) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"--job: {explain(error)}. Settings: {', '.join(_names(kind))}.") from error


def _names(kind: type[BaseModel]) -> list[str]:
    return list(kind.model_fields)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(Text("ipytune: ", style="red").append(message, style="default"), soft_wrap=True)
    raise typer.Exit(1)
