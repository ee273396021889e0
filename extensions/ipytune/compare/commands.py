"""`ipytune compare`: one prompt, several endpoints, their answers side by side as they come. cli.py mounts `app`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ipytune.compare.comparison import Comparison

app = typer.Typer()

_VOTES = "A, B, … (counted from the left), tie or bad; Enter leaves it"


@app.command()
def compare(
    prompt: Annotated[str, typer.Argument(help="What to ask all of them; - reads it from standard input.")],
    endpoint: Annotated[
        list[str], typer.Option(help="A name of `ipytune endpoints list`, or a URL. Two to four times.")
    ],
    model: Annotated[
        str | None, typer.Option(help="The model, for URLs; a server that lists just one needs none.")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(help="For URLs: NAME of the environment variable that holds the key.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="For URLs: the file that holds the key.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message before the prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 to 2.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Above 0, up to 1.")] = None,
    max_tokens: Annotated[int, typer.Option(help="The answers are cut there.")] = 512,
    seed: Annotated[int | None, typer.Option(help="Of the servers' draws.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="The answers end before it. Up to four times.")] = None,
    repeat: Annotated[int, typer.Option(help="Answers of each, to see how stable they are.")] = 1,
    blind: Annotated[bool, typer.Option("--blind", help="Shuffled and nameless; asks for a vote, then tells.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Also show what differs, word by word.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write everything there, as JSON; never over a file.")] = None,
    html: Annotated[Path | None, typer.Option(help="The same as a page that needs nothing else.")] = None,
) -> None:
    """Ask several endpoints the same at once, and show their answers side by side with how quick they were."""
    from rich.console import Console

    from ipytune.compare.comparison import Comparison
    from ipytune.endpoints.errors import EndpointError
    from ipytune.endpoints.naming import several

    console = Console(highlight=False)
    options: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
        "stop": stop,
    }
    try:
        words = sys.stdin.read() if prompt == "-" else prompt
        comparison = Comparison(
            several(endpoint, model=model, key_env=key_env, key_file=key_file),
            system=system,
            blind=blind,
            repeat=repeat,
            **{name: value for name, value in options.items() if value not in (None, [])},
        )
        comparison.begin(words)
        try:
            _watch(comparison, console)
        except KeyboardInterrupt:
            comparison.cancel()
            _watch(comparison, console)
            raise
        if blind:
            _vote(comparison, console)
        if diff:
            _differences(comparison, console)
        for path in (comparison.to_json(json) if json else None, comparison.to_html(html) if html else None):
            if path is not None:
                typer.echo(f"Written: {path}", err=True)
    except (EndpointError, ValueError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        typer.echo("Cancelled.", err=True)
        raise typer.Exit(130) from None
    failed = [takes for takes in comparison.rounds[-1].takes if takes[-1].error is not None]
    if failed:
        raise typer.Exit(1)


def _watch(comparison: Comparison, console: Console) -> None:
    """Show the columns as they grow, then whole. Where nobody watches (a file, a pipe), only whole."""
    import time

    from rich.live import Live

    from ipytune.compare.terminal import GLANCE, columns

    last = None
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False, vertical_overflow="crop") as live:
            while (seen := comparison.look()) is not None:
                last = seen
                if seen.over:
                    break
                live.update(columns(comparison, seen, height=console.height - 4, width=console.width), refresh=True)
                time.sleep(GLANCE)
    else:
        while (seen := comparison.look()) is not None:
            last = seen
            if seen.over:
                break
            time.sleep(GLANCE)
    if last is not None:
        console.print(columns(comparison, last))


def _vote(comparison: Comparison, console: Console) -> None:
    """Ask for the vote where somebody can answer; then tell the names."""
    from rich.text import Text

    from ipytune.compare.ballot import sentences
    from ipytune.compare.blind import LABELS
    from ipytune.endpoints.errors import BadRequest
    from ipytune.endpoints.untrusted import visible

    while sys.stdin.isatty() and console.is_terminal:
        choice = str(typer.prompt(f"Which is better? {_VOTES}", default="", show_default=False)).strip()
        if not choice:
            break
        try:
            comparison.vote(choice.lower() if choice.lower() in ("tie", "bad") else choice)
            break
        except BadRequest as error:
            typer.echo(str(error), err=True)
    comparison.reveal()
    for line in sentences(comparison.tally()):
        console.print(Text(visible(line)))
    for label, name in zip(LABELS, comparison.names(comparison.rounds[-1])):  # noqa: B905  (more labels than columns)
        console.print(Text(f"{label} is {visible(name)}"))


def _differences(comparison: Comparison, console: Console) -> None:
    from rich.text import Text

    from ipytune.compare.terminal import difference_of
    from ipytune.endpoints.untrusted import visible

    last = comparison.rounds[-1]
    names, seen = comparison.names(last), comparison.seen(last)
    for name, takes in list(zip(names, seen, strict=True))[1:]:
        console.print(Text(visible(f"\nFrom {names[0]} to {name}"), style="bold"))
        console.print(difference_of(seen[0][0].text, takes[0].text))


def _fail(message: str) -> NoReturn:
    from ipytune.endpoints.untrusted import visible

    typer.echo(f"ipytune: {visible(message)}", err=True)
    raise typer.Exit(1)
