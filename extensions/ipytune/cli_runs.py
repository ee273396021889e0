"""`ipytune runs`: list, show, compare, delete. cli.py mounts `app`; torch is not imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ipytune.lora.config import ConfigError, RunConfig
from ipytune.runs import words
from ipytune.runs.compare import Axis, compare
from ipytune.runs.directory import RunDirectory
from ipytune.runs.library import RunSummary, is_run, runs, summary
from ipytune.runs.removal import Removal, delete, plan_removal
from ipytune.runs.settings import flattened
from ipytune.runs.status import Phase

app = typer.Typer(help="The runs of a folder: list, show, compare, delete.", no_args_is_help=True)
console = Console()

COLUMNS = ("run", "state", "step", "loss", "held-out", "started", "time", "size", "adapter", "model", "data")
NARROW, WIDE = 6, 130  # columns that fit 80 characters beside a name, and characters from which on all do

Folder = Annotated[Path, typer.Argument(help="Folder in which the run directories are.")]
RunPath = Annotated[Path, typer.Argument(help="A run's directory.")]
KEPT_SHOWN = 10

_STYLES = {Phase.COMPLETED: "green", Phase.TRAINING: "cyan", Phase.ERROR: "red", None: "red"}


@app.command("list")
def list_(folder: Folder = Path("runs")) -> None:
    """All runs of a folder, newest first."""
    try:
        found = runs(folder)
    except FileNotFoundError as error:
        _fail(str(error))
    if not found:
        console.print(Text(f"No runs in {folder}."))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    shown = COLUMNS if console.width >= WIDE else COLUMNS[:NARROW]
    for name in shown:
        right = name in {"step", "loss", "held-out", "size"}
        folds = name in {"run", "model", "data"}
        table.add_column(name, justify="right" if right else "left", no_wrap=not folds, overflow="fold")
    for run in found:
        table.add_row(*_line(run)[: len(shown)])
    console.print(table)
    for run in found:
        if run.problem:
            console.print(Text(f"{words.printable(run.name)}: {words.printable(run.problem)}", "red"), soft_wrap=True)


@app.command()
def show(run_dir: RunPath) -> None:
    """One run: its state, what came of it, and every setting that is not the default."""
    if not is_run(RunDirectory(run_dir)):
        _fail(f"{run_dir} holds no run (no config.yaml with a status beside it). See `ipytune runs list`.")
    run = summary(run_dir)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in _facts(run):
        table.add_row(name, Text(words.printable(value)))
    try:
        settings = _chosen(RunConfig.from_yaml(RunDirectory(run_dir).config))
    except (ConfigError, OSError):
        settings = {}  # told as the run's problem
    for name, setting in settings.items():
        table.add_row(Text(name), Text(words.printable(words.setting(setting))))
    console.print(table)


@app.command("compare")
def compare_(
    run_dirs: Annotated[list[Path], typer.Argument(help="Two run directories or more.")],
    by: Annotated[str, typer.Option(help="What the curves are drawn over: step, tokens or time.")] = "step",
    html: Annotated[Path | None, typer.Option(help="Write the picture and tables there, as one HTML file.")] = None,
) -> None:
    """Curves over one another, results, and the settings in which the runs differ."""
    try:
        comparison = compare(run_dirs, cast(Axis, by))  # compare() refuses what is no axis
        if html is not None:
            html.write_text(f"<!doctype html><meta charset=utf-8><title>Runs</title>{comparison.html()}\n", "utf-8")
    except (ValueError, OSError) as error:
        _fail(str(error))
    console.print(comparison)


@app.command("delete")
def delete_(
    run_dirs: Annotated[list[Path], typer.Argument(help="Directories of runs that have ended.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete runs: the files that they wrote. What else lies in their directories is kept."""
    try:
        plans = [plan_removal(run_dir) for run_dir in run_dirs]
    except (ValueError, OSError) as error:
        _fail(str(error))
    for plan in plans:
        console.print(Text(words.printable(_what(plan))), soft_wrap=True)
    if not yes and not typer.confirm("Delete?"):
        console.print("Nothing was deleted.")
        raise typer.Exit(1)
    try:
        for plan in plans:
            delete(plan.run)
    except (ValueError, OSError) as error:
        _fail(str(error))
    console.print(f"Deleted {len(plans)} run{'s' if len(plans) != 1 else ''}.", highlight=False)


def _line(run: RunSummary) -> tuple[Text, ...]:
    step = f"{run.step:,}" + (f"/{run.total_steps:,}" if run.total_steps else "")
    cells = (
        run.name,
        run.state,
        step,
        words.loss(run.loss),
        words.loss(run.eval_loss),
        words.when(run.started),
        words.duration(run.seconds),
        words.size(run.size),
        "yes" if run.adapter else "no",
        run.model or words.NONE,
        run.data.name if run.data else words.NONE,
    )
    styles = {1: _STYLES.get(run.phase, "")}
    return tuple(Text(words.printable(cell), styles.get(at, "")) for at, cell in enumerate(cells))


def _facts(run: RunSummary) -> list[tuple[str, str]]:
    of = f" of {run.total_steps:,}" if run.total_steps else ""
    facts = [("run", str(run.path)), ("state", run.state)]
    if run.problem:
        facts.append(("problem", run.problem))
    return [
        *facts,
        ("step", f"{run.step:,}{of}"),
        ("loss", words.loss(run.loss)),
        ("held-out loss", words.loss(run.eval_loss)),
        ("started", words.when(run.started)),
        ("time training", words.duration(run.seconds)),
        ("adapter", str(run.path / "adapter") if run.adapter else "no"),
        ("size", words.size(run.size)),
        ("", ""),
        ("model", run.model or words.NONE),
        ("train_file", str(run.data) if run.data else words.NONE),
    ]


def _chosen(config: RunConfig) -> dict[str, object]:
    """Settings other than the defaults, without those that are shown anyway."""
    plain = flattened(RunConfig(train_file=config.train_file))
    shown = ("model", "train_file")
    return {name: value for name, value in flattened(config).items() if name not in shown and plain.get(name) != value}


def _what(plan: Removal) -> str:
    text = f"{plan.run}: {len(plan.removed)} files, {words.size(plan.size)}"
    if plan.kept:
        named = ", ".join(map(str, plan.kept[:KEPT_SHOWN])) + (", …" if len(plan.kept) > KEPT_SHOWN else "")
        text += f"; kept, because no run writes them: {named}"
    return text


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(Text("ipytune: ", "red").append(words.printable(message), "default"), soft_wrap=True)
    raise typer.Exit(1)
