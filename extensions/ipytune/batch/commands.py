"""`ipytune submit`, `ipytune results`, `ipytune cancel`. cli.py mounts `app`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ipytune import cli_launch
from ipytune.batch import results as tables
from ipytune.batch import sets
from ipytune.batch.directory import Batch, BatchDirectory, BatchError, State, Submission
from ipytune.batch.overview import Overview, Row, jobs_of
from ipytune.batch.parameters import ParameterError
from ipytune.batch.submit import cancel as cancel_batch
from ipytune.batch.submit import new_batch, read_notebook
from ipytune.batch.submit import resume as resume_batch
from ipytune.batch.submit import submit as submit_batch
from ipytune.cli_launch import Where
from ipytune.cli_pairs import Pairs
from ipytune.runs import words
from ipytune.runs.launch.base import LaunchError

POLL_SECONDS = 1.0
app = typer.Typer()
console = Console()


DirArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the batch.")]


@app.command(cls=Pairs)
def submit(
    notebook: Annotated[Path | None, typer.Argument(help="The notebook. Not with --resume.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME VALUE", help="The same in every set.")
    ] = None,
    set_file: Annotated[
        Path | None, typer.Option("--set", metavar="FILE", help="A list of sets: .yaml, .json, .jsonl or .csv.")
    ] = None,
    grid: Annotated[
        list[str] | None, typer.Option(metavar="NAME=A,B", help="A set for each value; several: all combinations.")
    ] = None,
    on: cli_launch.OnOption = Where.SESSION,
    job: cli_launch.JobOption = None,
    at_once: Annotated[int | None, typer.Option(min=1, help="Sets that run at once. Default: all; here: one.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="A new directory for the batch. Default: batches/NAME-TIME.")
    ] = None,
    cwd: Annotated[
        Path | None, typer.Option(help="Where relative paths of the notebook begin. Default: this directory.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with the unfinished sets of this batch.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the job script or manifests, and stop.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end; exit status 1 if a set failed.")] = False,
) -> None:
    """Run a notebook as a batch job, once for each set of parameters."""
    try:
        if resume is not None:
            _only_resume(notebook, parameter, set_file, grid, job, at_once, folder, cwd, dry_run)
            directory = BatchDirectory(resume)
            submission, rows = resume_batch(directory)
            if submission is None:
                console.print(f"Nothing to go on with: {tables.tally(rows)}.", highlight=False)
            else:
                _tell(directory, submission)
        else:
            if notebook is None:
                raise ValueError("Name a notebook, or a batch to go on with: --resume DIR.")
            content, declared = read_notebook(notebook)
            rows_of_file = sets.read(set_file, declared) if set_file else []
            pairs = [(name, value) for name, _, value in (one.partition("=") for one in parameter or ())]
            chosen = sets.build(declared, pairs, rows_of_file, grid or ())
            batch = new_batch(
                notebook,
                content,
                cwd=str((cwd or Path.cwd()).expanduser().absolute()),
                at_once=at_once,
                sets=tuple(chosen),
                **_scheduler(on, job),
            )
            directory = BatchDirectory(folder or _new_folder(notebook))
            if dry_run:
                _preview(directory, batch)
                return
            if not Path(batch.cwd).is_dir():
                raise ValueError(f"--cwd {batch.cwd} is no directory.")
            submission = submit_batch(directory, batch, content, declared)
            _tell(directory, submission)
    except (BatchError, LaunchError, ParameterError, OSError, ValueError) as error:
        _fail(_said(error))
    if wait:
        _follow(directory)


@app.command()
def results(
    directory: DirArgument,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="A.B", help="A value of metrics.json. Default: its numbers.")
    ] = None,
    sort: Annotated[str | None, typer.Option(metavar="COLUMN", help="By this column; -COLUMN: downwards.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with all metrics.")] = False,
) -> None:
    """Show how the sets of a batch stand, and what they measured."""
    try:
        rows = tables.order(Overview(BatchDirectory(directory)).rows(), sort, metric)
    except (BatchError, LaunchError, OSError, ValueError) as error:
        _fail(_said(error))
    if as_json:
        typer.echo(tables.as_json(rows))
    elif as_csv:
        typer.echo(tables.as_csv(rows, metric), nl=False)
    else:
        _show(rows, metric)


@app.command()
def cancel(directory: DirArgument) -> None:
    """End what is not finished of a batch; outputs so far are kept. Returns when all of it is gone."""
    try:
        with console.status("Waiting for its jobs to end") as status:

            def show(rows: list[Row]) -> None:
                status.update(f"Waiting for its jobs to end: {tables.tally(rows)}")

            ended = cancel_batch(BatchDirectory(directory), on_rows=show)
    except (BatchError, LaunchError, OSError, ValueError) as error:
        _fail(_said(error))
    if not ended:
        console.print("Nothing to cancel: every set has ended.")
        return
    console.print(f"Ended: {len(ended)} of its sets. To go on with them: ipytune submit --resume {directory}",
                  highlight=False, soft_wrap=True)  # fmt: skip


def _scheduler(on: Where, job: list[str] | None) -> dict[str, Any]:
    if on is Where.SLURM:
        return {"on": "slurm", "slurm": cli_launch.slurm_settings(job)}
    if on is Where.KUBERNETES:
        return {"on": "kubernetes", "kubernetes": cli_launch.kubernetes_settings(job)}
    if job:
        raise ValueError(f"--job {job[0]} is for a scheduler. Say which with --on slurm or --on kubernetes.")
    return {"on": "session"}


def _only_resume(*others: Any) -> None:
    if any(others):
        raise ValueError("--resume goes on with a batch as it was asked for: beside it, only --wait can be given.")


def _new_folder(notebook: Path) -> Path:
    return Path("batches") / f"{notebook.stem}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"


def _preview(directory: BatchDirectory, batch: Batch) -> None:
    jobs = jobs_of(directory, batch)
    jobs.check()
    typer.echo(jobs.preview(jobs.plan(Submission(sets=tuple(range(len(batch.sets)))))), nl=False)


def _tell(directory: BatchDirectory, submission: Submission) -> None:
    batch = directory.read()
    count = len(submission.sets)
    limit = f", {batch.at_once} at once" if batch.at_once and batch.at_once < count else ""
    runner = jobs_of(directory, batch).describe(submission)
    console.print(Text(f"{count} set{'s' if count != 1 else ''}{limit}: {runner}"), soft_wrap=True)
    console.print(Text(f"ipytune results {directory.path}"), soft_wrap=True)


def _follow(directory: BatchDirectory) -> None:
    """Shows the batch until it ends. Ctrl-C leaves it to itself."""
    overview = Overview(directory)
    columns = (BarColumn(bar_width=None), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=None)
            rows = _until_final(
                overview,
                lambda rows: progress.update(
                    task,
                    total=len(rows),
                    completed=sum(row.state.final for row in rows),
                    description=escape(_now(rows)),
                ),
            )
    except KeyboardInterrupt:
        console.print(Text(f"It goes on without you. To end it: ipytune cancel {directory.path}"), soft_wrap=True)
        raise typer.Exit(130) from None
    except (BatchError, OSError) as error:
        _fail(_said(error))
    _show(rows, None)
    if any(row.state is not State.DONE for row in rows):
        console.print(Text(f"To go on with what is not done: ipytune submit --resume {directory.path}"), soft_wrap=True)
        raise typer.Exit(1)


def _until_final(overview: Overview, show: Callable[[list[Row]], None]) -> list[Row]:
    while True:
        rows = overview.rows()
        show(rows)
        if all(row.state.final for row in rows):
            return rows
        time.sleep(POLL_SECONDS)


def _now(rows: list[Row]) -> str:
    """The tally, and what runs now, or why nothing does."""
    running = [f"{row.number}: {row.done}/{row.cells}" for row in rows if row.state is State.RUNNING and row.cells]
    waiting = next((row.words for row in rows if row.state is State.QUEUED and row.words), "")
    return tables.tally(rows) + (f" ({', '.join(running[:4])})" if running else f" ({waiting})" if waiting else "")


def _show(rows: list[Row], chosen: list[str] | None) -> None:
    made = tables.records(rows, chosen)
    columns = [name for name in made[0] if name not in {"state", "seconds", "error"}]
    place = 1 + len(tables.differing(rows))
    table = Table(box=None, pad_edge=False)
    names = [*columns[:place], "state", "time", *columns[place:]]
    for name in names:
        table.add_column(Text(name), justify="left" if name == "state" else "right")
    for row, record in zip(rows, made, strict=True):
        cells = {"state": tables.state_words(row), "time": words.duration(row.seconds)}
        shown = [cells.get(name) or tables.shown(record.get(name)) for name in names]
        table.add_row(*map(Text, shown))
    console.print(table)
    console.print(tables.tally(rows), highlight=False)


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(Text("ipytune: ", style="red").append(message, style="default"), soft_wrap=True)
    raise typer.Exit(1)
