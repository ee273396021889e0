"""`ipytune evaluate`: endpoints by any scorers, or a model on this machine by exact match. cli.py mounts `app`.

Neither torch nor the evaluation is imported before the command runs: `ipytune --help` answers at once.
"""

from __future__ import annotations

import difflib
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ipytune.models import SMOLLM2

if TYPE_CHECKING:
    from ipytune.endpoints.records import Endpoint
    from ipytune.evaluate.exact import Answer
    from ipytune.evaluate.progress import ColumnProgress
    from ipytune.evaluate.progress import Progress as Moment
    from ipytune.evaluate.result import Evaluation

app = typer.Typer()
console = Console()

SHOWN_MISTAKES = 3
_LOG_SECONDS = 30.0  # between lines of progress in a job's log


@app.command()
def evaluate(
    data: Annotated[Path | None, typer.Option(help="Questions and expected answers; default: the run's.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Evaluate the adapter of this run, or take its data.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Model directory or name (the run's, or {SMOLLM2}); of a URL: the served name.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Directory of an adapter.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many of the questions, always the same.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Answers as JSON; for endpoints the directory of the evaluation.")
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="A name of `ipytune endpoints`, or a URL. Repeat it; the first is compared with."),
    ] = None,
    key_env: Annotated[str | None, typer.Option(help="For URLs: NAME of the variable that holds the key.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="For URLs: the file that holds the key.")] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            help="exact, normalised, regex:PATTERN, contains:A|B, contains-all:A|B, json, json-schema:FILE, "
            "number:0.01, similarity:0.8. Repeat it."
        ),
    ] = None,
    judge: Annotated[str | None, typer.Option(help="An endpoint that grades the answers, too.")] = None,
    rubric: Annotated[str | None, typer.Option(help="What the judge grades by; @FILE reads it.")] = None,
    pairwise: Annotated[
        bool, typer.Option("--pairwise", help="The judge compares with the first endpoint's answers instead.")
    ] = False,
    task: Annotated[list[str] | None, typer.Option(help="Instead of --data: a task of lm-eval. Repeat it.")] = None,
    task_dir: Annotated[Path | None, typer.Option(help="A directory with tasks of lm-eval of your own.")] = None,
    completions: Annotated[bool, typer.Option("--completions", help="lm-eval tasks through /v1/completions.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way to each endpoint.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Answers to each question.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0: always the likeliest token.")] = 0.0,
    system: Annotated[str | None, typer.Option(help="The system prompt, for questions that bring none.")] = None,
    cache: Annotated[Path | None, typer.Option(help="A directory of answers that evaluations share.")] = None,
) -> None:
    """Score answers against expected ones: of endpoints, or (without --endpoint) of a model on this machine.

    An evaluation of endpoints that was stopped goes on when the same command is given again; nothing is asked twice.
    """
    with _told_well():
        if not endpoint:
            chosen = {"--scorer": scorer, "--judge": judge, "--task": task, "--task-dir": task_dir, "--cache": cache}
            chosen["--system"] = system
            for name, value in chosen.items():
                if value:
                    _fail(f"{name} is for endpoints. Name one with --endpoint; `ipytune serve` makes one of a model.")
            _local(data, run_dir, model, adapter, limit, output)
            return
        if adapter is not None:
            _fail("--adapter is for a model on this machine. Serve it (`ipytune serve`) and name the endpoint.")
        from ipytune.endpoints.naming import several

        endpoints = several(endpoint, model=model, key_env=key_env, key_file=key_file)
        if task:
            _lm_eval(endpoints, task, output, completions, concurrency, limit, task_dir)
            return
        _remote(
            data if data is not None else _held_out(run_dir),
            endpoints,
            [*(scorer or ([] if judge else ["exact"])), *_judges(judge, rubric, pairwise)],
            {
                "concurrency": concurrency,
                "limit": limit,
                "directory": output,
                "cache": cache,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "system": system,
                "repeats": repeats,
            },
        )


def _remote(data: Any, endpoints: list[Endpoint], scorers: list[Any], settings: dict[str, Any]) -> None:
    from ipytune.evaluate.job import Job
    from ipytune.evaluate.plan import plan
    from ipytune.evaluate.run import follow

    job = Job(plan(data, endpoints, scorers, **settings))
    before = signal.signal(signal.SIGTERM, _interrupt)  # a batch system ends a job with it: keep what was paid
    try:
        with _shown([item.name for item in endpoints], job.plan.answers) as show:
            result = follow(job, show)
    except KeyboardInterrupt:
        done = job.progress()
        console.print(
            Text(
                f"Stopped with {done.done} of {done.total} answers, all kept in {job.plan.directory}. "
                "The same command goes on."
            ),
            soft_wrap=True,
        )
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    _conclude(result)


def _conclude(result: Evaluation) -> None:
    for path in (result.to_html(result.directory / "report.html"), result.to_csv(result.directory / "report.csv")):
        console.print(Text(f"written: {path}"), soft_wrap=True)
    result.to_json(result.directory / "report.json")
    console.print(_table(result))
    for sentence in result.verdicts:
        console.print(_plain(sentence), soft_wrap=True)
    for row in result.rows("failures", SHOWN_MISTAKES):
        console.print(_plain(f"\nline {row.question.line}: {row.question.text}", 400), soft_wrap=True)
        if row.question.expected is not None:
            console.print(_plain(f"  expected  {row.question.expected}", 400, "green"), soft_wrap=True)
        for cell in row.cells:
            style = "red" if cell.failed else "default"
            console.print(_plain(f"  {cell.endpoint}  {cell.problem or cell.text}", 400, style), soft_wrap=True)
    given_up = [column for column in result.columns if column.problem is not None]
    if given_up:
        _fail(f"{given_up[0].endpoint} was given up: {given_up[0].problem}")


def _table(result: Evaluation) -> Table:
    from ipytune.evaluate import verdicts
    from ipytune.evaluate.report import cost

    found = {(item.endpoint, item.scorer): item for item in result.summaries}
    table = Table(box=None, pad_edge=False)
    for head in ("", *result.scorers, "written now"):
        table.add_column(Text(head), overflow="fold")
    for column in result.columns:
        cells = (found.get((column.endpoint, name)) for name in result.scorers)
        table.add_row(
            Text(column.endpoint),
            *(Text(verdicts.result(item) if item is not None else "–") for item in cells),
            Text(cost(column.output_tokens, column.tokens_estimated)),
        )
    return table


def _plain(text: str, longest: int = 2000, style: str = "default") -> Text:
    """What a model or a server wrote must not steer the terminal."""
    from ipytune.endpoints.untrusted import visible

    cut = text if len(text) <= longest else text[:longest] + "…"
    return Text(visible(cut), style=style)


@contextmanager
def _shown(names: list[str], answers: int) -> Iterator[Callable[[Moment], None]]:
    """Bars in a terminal, now and then a line in a job's log."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.completed}/{task.total}  {task.fields[numbers]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars: list[TaskID] = [progress.add_task(name, total=answers, numbers="") for name in names]
        said = [0.0]

        def show(moment: Moment) -> None:
            for bar, column in zip(bars, moment.columns, strict=True):
                progress.update(bar, completed=column.done, numbers=_numbers(column))
            if not console.is_terminal and moment.seconds - said[0] >= _LOG_SECONDS:
                said[0] = moment.seconds
                console.print(Text(f"{moment.phase}: {moment.done} of {moment.total} answers, {moment.seconds:.0f} s"))

        yield show


def _numbers(column: ColumnProgress) -> str:
    words = [f"{column.output_tokens} tokens"]
    if column.failed:
        words.append(f"{column.failed} without answer")
    if column.problem is not None:
        words.append("given up")
    return "  ".join(words)


def _judges(word: str | None, rubric: str | None, pairwise: bool) -> list[Any]:
    if word is None:
        if rubric or pairwise:
            _fail("--rubric and --pairwise are for a judge. Name one with --judge.")
        return []
    from ipytune.endpoints.naming import from_words
    from ipytune.evaluate.scorers import Judge, PairwiseJudge

    endpoint = from_words(word)
    text = Path(rubric[1:]).expanduser().read_text(encoding="utf-8") if rubric and rubric.startswith("@") else rubric
    if pairwise:
        return [PairwiseJudge(endpoint) if text is None else PairwiseJudge(endpoint, text)]
    return [Judge(endpoint) if text is None else Judge(endpoint, text)]


def _lm_eval(
    endpoints: list[Endpoint],
    tasks: list[str],
    output: Path | None,
    completions: bool,
    concurrency: int,
    limit: int | None,
    include: Path | None,
) -> None:
    from ipytune.evaluate import lm_eval

    for endpoint in endpoints:
        where = (output or Path("evaluations")) / f"lm-eval-{endpoint.name.replace('/', '-')}"
        result = lm_eval.run(
            endpoint,
            tasks,
            where,
            chat=not completions,
            on_line=lambda line: console.print(_plain(line), soft_wrap=True),
            concurrency=concurrency,
            limit=limit,
            include=include,
        )
        for name, numbers in result.tasks.items():
            shown = ", ".join(f"{key} {value:.4f}" for key, value in numbers.items() if isinstance(value, float))
            console.print(_plain(f"{endpoint.name}  {name}: {shown}"), soft_wrap=True)
        console.print(Text(f"written: {result.path}"), soft_wrap=True)


def _held_out(run_dir: Path | None) -> Any:
    """The data of a run: its eval_file, or what it holds out of its own."""
    if run_dir is None:
        _fail("Nothing to evaluate on. Name a file with --data, or a run with --run-dir.")
    from ipytune.data.validate import load
    from ipytune.runs import Run

    config = Run.open(run_dir).config
    if config.eval_file is not None:
        return config.eval_file
    held_out = load(config).held_out
    if not held_out:
        _fail(
            f"The run {run_dir} has no eval_file and holds out nothing (data.eval_fraction). Name a file with --data."
        )
    return held_out


def _local(
    data: Path | None,
    run_dir: Path | None,
    model: str | None,
    adapter: Path | None,
    limit: int | None,
    output: Path | None,
) -> None:
    """Exact match of a model on this machine: how many answers are the expected ones, to the letter."""
    from ipytune.data.read import Example
    from ipytune.data.validate import load
    from ipytune.evaluate.exact import MESSAGES, exact_match
    from ipytune.runs import Run

    layout = MESSAGES
    held_out: list[Example] = []
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
    console.print(Text(str(result)), soft_wrap=True)
    for mistake in result.mistakes[:SHOWN_MISTAKES]:
        console.print(_difference(mistake))
    if output is not None:
        answers = [vars(answer) | {"right": answer.right} for answer in result.answers]
        output.write_text(json.dumps({"exact_match": result.share, "n": result.n, "answers": answers}, indent=1))


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


@contextmanager
def _told_well() -> Iterator[None]:
    """Errors as sentences, exit 1; an interrupt as 130."""
    from ipytune.endpoints.errors import EndpointError
    from ipytune.evaluate.lm_eval import LmEvalFailed
    from ipytune.models import ModelNotFound

    try:
        yield
    except (EndpointError, LmEvalFailed, ModelNotFound, ValueError, OSError) as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str) -> NoReturn:
    from ipytune.endpoints.untrusted import visible

    Console(stderr=True).print(Text("ipytune: ", style="red").append(visible(message), style="default"), soft_wrap=True)
    raise typer.Exit(1)
