"""`ipytune load`. cli.py mounts `app`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ipytune.endpoints.records import Endpoint
    from ipytune.load.plan import Plan
    from ipytune.load.report import LoadReport
    from ipytune.load.run import Progress

app = typer.Typer()


class Arrivals(str, Enum):
    CONSTANT = "constant"
    POISSON = "poisson"


class Api(str, Enum):
    CHAT = "chat"
    COMPLETIONS = "completions"


class Sweep(str, Enum):
    CONCURRENCY = "concurrency"
    RATES = "rates"


@app.command()
def load(
    endpoint: Annotated[str, typer.Option(help="A name of the catalogue (`ipytune endpoints list`), or a URL.")],
    model: Annotated[str | None, typer.Option(help="For a URL: the model's name on that server.")] = None,
    key_env: Annotated[str | None, typer.Option(help="For a URL: NAME of the variable that holds the key.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="For a URL: the file that holds the key.")] = None,
    concurrency: Annotated[str | None, typer.Option(help="Users at once, a step each: 1,2,4,8 (closed loop).")] = None,
    rate: Annotated[str | None, typer.Option(help="Requests per second, a step each: 0.5,1,2 (open loop).")] = None,
    trace: Annotated[Path | None, typer.Option(help="JSON lines: timestamp, input_length, output_length.")] = None,
    trace_scale: Annotated[float, typer.Option(help="Multiplies timestamps; 0.001 for milliseconds.")] = 1.0,
    sweep: Annotated[Sweep | None, typer.Option(help="Doubling steps from 1 until the server is saturated.")] = None,
    arrivals: Annotated[Arrivals, typer.Option(help="Gaps of --rate: even, or random.")] = Arrivals.POISSON,
    burstiness: Annotated[float, typer.Option(help="Of random gaps: 1 is Poisson, less comes in bursts.")] = 1.0,
    duration: Annotated[float | None, typer.Option(help="Seconds measured in each step. [default: 30]")] = None,
    requests: Annotated[int | None, typer.Option(help="Measured requests of each step, at most.")] = None,
    warmup: Annotated[int | None, typer.Option(help="First requests of a step, not measured.")] = None,
    ramp: Annotated[float, typer.Option(help="Seconds over which the load grows, not measured.")] = 0.0,
    prompt_words: Annotated[int, typer.Option(help="Length of generated prompts.")] = 128,
    prompts: Annotated[Path | None, typer.Option(help="A file of prompts: a line each, or JSON lines.")] = None,
    output_tokens: Annotated[int, typer.Option(help="Length of the answers.")] = 128,
    pin: Annotated[bool, typer.Option(help="Exactly so long (min_tokens, ignore_eos), or at most.")] = True,
    api: Annotated[Api, typer.Option(help="Which of the two APIs is asked.")] = Api.CHAT,
    objective: Annotated[
        list[str] | None, typer.Option(help="What a good request keeps: ttft=0.5, tpot=0.05, e2e=10 (seconds).")
    ] = None,
    good_share: Annotated[
        float | None, typer.Option(help="End after the step in which fewer requests were good: 0.9.")
    ] = None,
    until_saturated: Annotated[
        bool, typer.Option("--until-saturated", help="End after the first step that the server cannot keep up with.")
    ] = False,
    processes: Annotated[str, typer.Option(help="Measuring processes: auto, or a number.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of random gaps and of prompts.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Directory for report.html, .json, .csv, records.jsonl.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure an endpoint under load: TTFT, ITL, TPOT, throughput, goodput. Ctrl-C keeps the part measured."""
    from rich.console import Console

    from ipytune.endpoints.errors import EndpointError
    from ipytune.load.plan import planned
    from ipytune.load.run import LoadFailed

    told = Console(stderr=True)
    try:
        fields: dict[str, Any] = {
            "concurrency": _numbers("--concurrency", concurrency, int),
            "rates": _numbers("--rate", rate, float),
            "trace": trace,
            "trace_scale": trace_scale,
            "arrivals": arrivals.value,
            "burstiness": burstiness,
            "duration": duration,
            "requests": requests,
            "warmup": warmup,
            "ramp": ramp,
            "prompt_words": prompt_words,
            "prompts": prompts,
            "output_tokens": output_tokens,
            "pin_output": pin,
            "api": api.value,
            "objectives": _objectives(objective or []),
            "good_share": good_share,
            "until_saturated": until_saturated,
            "processes": processes if processes == "auto" else _numbers("--processes", processes, int)[0],
            "seed": seed,
        }
        if sweep is not None:
            if concurrency or rate or trace:
                _refuse("--sweep chooses the steps itself: leave out --concurrency, --rate and --trace.")
            fields |= {sweep.value: tuple(2**power for power in range(10)), "until_saturated": True}
        plan = planned(**fields)
        report, interrupted = _measured(_named(endpoint, model, key_env, key_file), plan, output, told)
    except (EndpointError, LoadFailed, ValueError, OSError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        typer.echo("Cancelled.", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(report.model_dump_json(indent=1))
    else:
        _show(report, Console())
    if output is not None:
        typer.echo(f"written: {output}", err=True)
    if interrupted:
        typer.echo("Stopped; what was measured is above.", err=True)
        raise typer.Exit(130)
    if not report.succeeded:
        _fail("No request succeeded: " + "; ".join(report.notes()[:3]))


def _named(word: str, model: str | None, key_env: str | None, key_file: Path | None) -> Endpoint:
    from ipytune.endpoints.naming import from_words

    return from_words(word, model=model, key_env=key_env, key_file=key_file)


def _measured(endpoint: Endpoint, plan: Plan, output: Path | None, told: Console) -> tuple[LoadReport, bool]:
    """The report, and whether an interrupt ended it early."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from ipytune.load.run import LoadInterrupted, LoadRun

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[words]}"))
    with Bars(*columns, TimeRemainingColumn(compact=True), console=told, transient=True) as bars:
        task = bars.add_task("checking", total=None, words="")

        def show(progress: Progress) -> None:
            whole = progress.elapsed + progress.eta if progress.eta is not None else None
            bars.update(
                task,
                description=f"{progress.label or progress.phase} ({progress.step}/{progress.steps})",
                completed=progress.elapsed,
                total=whole,
                words=line(progress),
            )

        run = LoadRun(endpoint, plan, directory=output, on_progress=show)
        try:
            return run.start().wait(), False
        except LoadInterrupted as stopped:
            if stopped.report is None:
                raise KeyboardInterrupt from None
            return stopped.report, True


def line(progress: Progress) -> str:
    """How it goes, in a few words."""
    from ipytune.load.report import brief

    words = [f"{progress.done} done", f"{progress.running} running"]
    if progress.errors:
        words.append(f"{progress.errors} errors")
    if progress.ttft is not None:
        words.append(f"TTFT {brief(progress.ttft)}")
    if progress.chunks_per_second:
        words.append(f"{progress.chunks_per_second:,.0f} chunks/s")
    return " · ".join(words)


def _show(report: LoadReport, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from ipytune.load.report import table

    heads, rows = table(report.steps)
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for number, head in enumerate(heads):
        shown.add_column(Text(head), justify="left" if number == 0 else "right")
    for cells in rows:
        shown.add_row(*(Text(cell) for cell in cells))
    console.print(shown)
    for note in report.notes():
        console.print(Text(f"- {note}"), soft_wrap=True)


def _numbers(option: str, words: str | None, kind: type[int] | type[float]) -> tuple[Any, ...]:
    """>>> _numbers("--rate", "0.5, 2", float)
    (0.5, 2.0)
    """
    if words is None:
        return ()
    try:
        return tuple(kind(word) for word in words.split(","))
    except ValueError:
        example = "1,2,4" if kind is int else "0.5,1,2"
        raise ValueError(f"{option}: “{words}” is no list of numbers. Write them with commas: {example}") from None


def _objectives(words: list[str]) -> dict[str, float]:
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name.strip().lower()] = float(value)
        except ValueError:
            raise ValueError(f"--objective: “{word}” is none. Write NAME=SECONDS, for example ttft=0.5") from None
    return found


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


def _fail(message: str) -> NoReturn:
    typer.echo(f"ipytune: {message}", err=True)
    raise typer.Exit(1)
