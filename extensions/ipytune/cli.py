"""`ipytune`: train and evaluate from a terminal or a job script; `serve` and `chat` come from the endpoints.

Nothing here imports torch at the top: `ipytune --help` answers at once.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ipytune import cli_launch, cli_runs
from ipytune.cli_adapter import app as adapter_app
from ipytune.cli_data import check
from ipytune.cli_memory import memory
from ipytune.data.findings import DatasetError
from ipytune.data.validate import load
from ipytune.endpoints.commands import app as endpoints_app
from ipytune.endpoints.serve_command import app as serve_app
from ipytune.evaluate.exact import MESSAGES, Answer, exact_match
from ipytune.lora.config import ConfigError, RunConfig
from ipytune.models import SMOLLM2, ModelNotFound
from ipytune.runs import Phase, Run, RunFailed, Status
from ipytune.runs.launch import LaunchError

app = typer.Typer(
    help="Fine-tune language models with LoRA, and test them.", no_args_is_help=True, add_completion=False
)
app.registered_commands.extend(
    [*adapter_app.registered_commands, *endpoints_app.registered_commands, *serve_app.registered_commands]
)
app.add_typer(cli_runs.app, name="runs")
app.command()(check)
app.command()(memory)
app.command()(cli_launch.export)
console = Console()

SHOWN_MISTAKES = 3

WORDS = {
    Phase.IDLE: "starting",
    Phase.LOADING_MODEL: "loading model",
    Phase.LOADING_DATASET: "reading data",
    Phase.CONFIGURING: "preparing",
    Phase.TRAINING: "training",
    Phase.FINALIZING: "writing adapter",
    Phase.COMPLETED: "completed",
    Phase.STOPPED: "stopped",
    Phase.ERROR: "failed",
}


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file; `first-task` is the task that comes with ipytune.")],
    run_dir: Annotated[Path, typer.Option(help="Directory of the run: status, checkpoints, adapter, report.")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in this directory.")] = False,
    on: cli_launch.OnOption = cli_launch.Where.SESSION,
    processes: cli_launch.ProcessesOption = None,
    job: cli_launch.JobOption = None,
) -> None:
    """Train an adapter. Ctrl-C stops after the current step and keeps what was learned."""
    try:
        settings = RunConfig.first_task() if str(config) == "first-task" else RunConfig.from_yaml(config)
        run = Run.start(settings, run_dir, resume=resume, launcher=cli_launch.launcher(on, processes, job))
        report = _follow(run)
    except (ConfigError, FileNotFoundError, LaunchError, ValueError) as error:
        _fail(str(error))
    except RunFailed as failure:
        _fail(f"{failure.what}: {failure.why}\nThe whole log: {run.path / 'train.log'}")
    _conclude(run, report)


@app.command()
def evaluate(
    data: Annotated[Path | None, typer.Option(help="JSON lines with the expected answers; default: the run's.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Evaluate the adapter of this run.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Model directory or name. Default: the run's, or {SMOLLM2}.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Directory of an adapter.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many of the questions, always the same.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the answers there, as JSON.")] = None,
) -> None:
    """Exact match: how many answers are the expected ones, to the letter."""
    try:
        layout, held_out = MESSAGES, []
        if run_dir is not None:
            run = Run.open(run_dir)
            layout = run.config.data
            model, adapter, data = model or run.config.model, adapter or run.adapter, data or run.config.eval_file
            held_out = load(run.config).held_out if data is None else []
        if data is None and not held_out:
            _fail(
                "Nothing to evaluate on. Name a file with --data, or with --run-dir a run that has an eval_file or "
                "holds out a part of its data (data.eval_fraction)."
            )
        with console.status("loading model") as status:
            result = exact_match(
                data or held_out,
                model or SMOLLM2,
                adapter,
                limit,
                on_progress=lambda n: status.update(f"{n} answered"),
                layout=layout,
            )
    except (ConfigError, DatasetError, FileNotFoundError, ModelNotFound) as error:
        _fail(str(error))
    console.print(Text(str(result)), soft_wrap=True)
    for mistake in result.mistakes[:SHOWN_MISTAKES]:
        console.print(_difference(mistake))
    if output is not None:
        answers = [vars(answer) | {"right": answer.right} for answer in result.answers]
        output.write_text(json.dumps({"exact_match": result.share, "n": result.n, "answers": answers}, indent=1))


def _follow(run: Run) -> dict[str, object]:
    """Shows the run until it ends. The first Ctrl-C asks it to stop, the second leaves it to itself."""
    columns = (
        TextColumn("{task.description:<15}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=None, numbers="")

        def show(status: Status) -> None:
            if not console.is_terminal and status.phase is not seen.get("phase"):
                console.print(WORDS[status.phase])  # a job's log gets a line a phase, no bar
            seen["phase"] = status.phase
            progress.update(
                task,
                description=WORDS[status.phase],
                completed=status.step,
                total=status.total_steps,
                numbers=_numbers(status),
            )

        seen: dict[str, Phase] = {}
        try:
            return run.wait(on_status=show)
        except KeyboardInterrupt:
            progress.console.print(
                "Stopping after this step; what was learned is kept. Ctrl-C again to leave it alone."
            )
            return run.wait(on_status=show)


def _numbers(status: Status) -> str:
    shown = [f"{status.step}/{status.total_steps}" if status.total_steps else ""]
    if status.loss is not None:
        shown.append(f"loss {status.loss:.3f}")
    if status.tokens_per_second is not None:
        shown.append(f"{status.tokens_per_second:.0f} tok/s")
    return "  ".join(shown)


def _conclude(run: Run, report: dict[str, object]) -> None:
    losses = ", ".join(
        f"{name} {report[key]:.3f}"
        for name, key in (("loss", "loss"), ("held-out loss", "eval_loss"))
        if report[key] is not None
    )
    console.print(
        f"{run.status().phase} at step {report['step']} of {report['total_steps']} "
        f"after {report['training_seconds']:.0f} s" + (f": {losses}" if losses else ""),
        highlight=False,
    )
    console.print(f"adapter: {run.adapter}", highlight=False, soft_wrap=True)


def _difference(mistake: Answer) -> Text:
    """A wrong answer as the lines that differ from the expected one."""
    lines = difflib.ndiff(mistake.expected.splitlines(), mistake.given.splitlines())
    styles = {"- ": ("green", "expected "), "+ ": ("red", "given    ")}
    text = Text(f"\n{mistake.question}")
    for line in lines:
        if line[:2] in styles:
            style, word = styles[line[:2]]
            text.append(f"\n  {word}{line[2:]}", style=style)
    return text


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(Text("ipytune: ", style="red").append(message, style="default"), soft_wrap=True)
    raise typer.Exit(1)
