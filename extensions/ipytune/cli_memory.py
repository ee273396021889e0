"""`ipytune memory`: does a run fit, before it starts. cli.py mounts `memory`; torch is not imported here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ipytune.lora.config import ConfigError, RunConfig
from ipytune.models import ModelNotFound


def memory(
    config: Annotated[Path, typer.Argument(help="YAML file; `first-task` is the task that comes with ipytune.")],
    probe: Annotated[bool, typer.Option("--probe", help="Also run one real step and measure it.")] = False,
    longest: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the longest conversation. Default: max_length, the worst case.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that the run is started on.")] = 1,
    gpu_memory: Annotated[
        float | None, typer.Option(min=1, help="GiB: compare with GPUs of that size instead of those that are here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The numbers as JSON, in bytes.")] = False,
) -> None:
    """What a run needs, what there is, and the smallest change that would make it fit.

    Exit status 0 when it fits or is tight, 3 when it does not fit, 1 when it cannot be said.
    """
    from ipytune.memory import available as room
    from ipytune.memory.advice import Verdict, advice
    from ipytune.memory.bar import bar_text, parts_text
    from ipytune.memory.check import estimate_here
    from ipytune.memory.probe import ProbeFailed
    from ipytune.memory.probe import probe as measure

    measured = None
    try:
        settings = RunConfig.first_task() if str(config) == "first-task" else RunConfig.from_yaml(config)
        if probe:
            measured = measure(settings)
            typer.echo(f"One step: {measured}.", err=as_json)
        there = room.available()
        if gpu_memory is not None:
            limit = room.Limit(f"a GPU of {gpu_memory:g} GiB", int(gpu_memory * 2**30))
            there = room.Available(there.host, (limit,) * gpus, there.notes)
        needed = estimate_here(settings, there, longest, processes=gpus)
        try:
            fit = advice(needed, there)
        except ValueError:
            typer.echo("\n".join(parts_text(needed.parts)), err=as_json)
            raise
    except (ConfigError, FileNotFoundError, ModelNotFound, ProbeFailed, TimeoutError, ValueError) as error:
        _fail(str(error))
    if as_json:
        found = {"verdict": str(fit.verdict), "estimate": needed.as_dict(), "free": fit.device_need.limit.free}
        found["change"] = fit.remedy.settings if fit.remedy is not None else {}
        found["probe"] = measured.as_dict() if measured is not None else None
        typer.echo(json.dumps(found, indent=1))
    else:
        typer.echo(bar_text(fit, measured.peak if measured is not None else None))
    if fit.verdict is Verdict.DOES_NOT_FIT or (measured is not None and not measured.fits):
        raise typer.Exit(3)


def _fail(message: str) -> NoReturn:
    typer.echo(f"ipytune: {message}", err=True)
    raise typer.Exit(1)
