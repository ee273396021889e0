"""`ipytune`: train from a terminal or a job script; every other command comes from the part that it belongs to.

Nothing here imports torch at the top: `ipytune --help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ipytune import cli_launch, cli_runs
from ipytune.batch.commands import app as batch_app
from ipytune.cli_adapter import app as adapter_app
from ipytune.cli_data import check
from ipytune.cli_memory import memory
from ipytune.cli_run import app as run_app
from ipytune.compare.commands import app as compare_app
from ipytune.endpoints import serve_command
from ipytune.endpoints.commands import app as endpoints_app
from ipytune.evaluate.commands import app as evaluate_app
from ipytune.load.commands import app as load_app
from ipytune.lora.config import ConfigError, RunConfig
from ipytune.mock.commands import app as mock_app
from ipytune.runs import Phase, Run, RunFailed, Status
from ipytune.runs.launch import LaunchError

app = typer.Typer(
    help="Fine-tune language models with LoRA, and test them.", no_args_is_help=True, add_completion=False
)
console = Console()

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


for command in (check, memory, cli_launch.export):
    app.command()(command)
for part in (
    adapter_app,
    serve_command.app,
    endpoints_app,
    compare_app,
    evaluate_app,
    load_app,
    mock_app,
    run_app,
    batch_app,
):
    app.registered_commands.extend(part.registered_commands)
    app.registered_groups.extend(part.registered_groups)
app.add_typer(cli_runs.app, name="runs")
app.add_typer(serve_command.adapters, name="adapters")


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


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(Text("ipytune: ", style="red").append(message, style="default"), soft_wrap=True)
    raise typer.Exit(1)
