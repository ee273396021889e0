"""`ipytune endpoints`: list, check, add, remove. commands.py puts `app` beside `ipytune chat`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ipytune.endpoints.catalogue import Catalogue
    from ipytune.endpoints.health_check import Health
    from ipytune.endpoints.records import Endpoint

app = typer.Typer(help="The endpoints that can be named: list, check, add, remove.", invoke_without_command=True)

_MODELS_SHOWN = 3
_WIDE = 120  # characters from which on all columns of `check` fit

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


@app.callback(invoke_without_command=True)
def endpoints(context: typer.Context) -> None:
    """The endpoints that can be named: list, check, add, remove."""
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """What is in the catalogue, and where it comes from. Nothing is asked."""
    from ipytune.endpoints.catalogue import Catalogue

    catalogue = Catalogue.load()
    if as_json:
        told = [_plain(entry.endpoint, entry.source) for entry in catalogue.entries]
        typer.echo(json.dumps(told, indent=1, ensure_ascii=False))
    elif catalogue.entries:
        table = _table("name", "model", "source", "URL", "key")
        for entry in catalogue.entries:
            table.add_row(*_cells(entry.endpoint, entry.source))
        Console().print(table)
    else:
        typer.echo("No endpoints yet. Add one: ipytune endpoints add NAME URL --key-env VARIABLE")
    _tell(catalogue)


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Names or URLs; all of the catalogue by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask each whether it answers and which models it lists; costs no token. Exit code 1 if one is not well."""
    from ipytune.endpoints.catalogue import Catalogue
    from ipytune.endpoints.errors import EndpointError
    from ipytune.endpoints.naming import from_words

    catalogue = Catalogue.load()
    sources: dict[str, str] = {entry.endpoint.name: entry.source for entry in catalogue.entries}
    try:
        asked = [from_words(name) for name in names or catalogue.names]
        results = _healths(asked)
    except EndpointError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json:
        told = [
            _plain(endpoint, sources.get(endpoint.name, "")) | _plain_health(health)
            for endpoint, health in zip(asked, results, strict=True)
        ]
        typer.echo(json.dumps(told, indent=1, ensure_ascii=False))
    else:
        _show_health(asked, sources, results)
    _tell(catalogue)
    if not all(health.well for health in results):
        raise typer.Exit(1)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What it is to be called.")],
    url: Annotated[str, typer.Argument(help="The API's URL, for example https://inference.example.org/v1.")],
    model: Annotated[str | None, typer.Option(help="Its model; asked of the server if that lists only one.")] = None,
    key_env: Annotated[str | None, typer.Option(help="NAME of the environment variable that holds the key.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="The file that holds the key.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Exchange the one of that name.")] = False,
    key: Annotated[str | None, typer.Option("--key", "--api-key", "--token", hidden=True)] = None,
) -> None:
    """Keep an endpoint in your own file. The key is named, never written: --key-env or --key-file."""
    from ipytune.endpoints import user_file
    from ipytune.endpoints.errors import EndpointError

    try:
        path = user_file.add(_described(name, url, model, key_env, key_file, key), replace=replace)
    except EndpointError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(f"Added to {path}. Try it: ipytune chat --endpoint {name}")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="An endpoint of your own file.")]) -> None:
    """Take an endpoint out of your own file. Those of the site and of running servers are not yours to remove."""
    from ipytune.endpoints import user_file
    from ipytune.endpoints.errors import EndpointError

    try:
        path = user_file.remove(name)
    except EndpointError as error:
        _fail(str(error))
    typer.echo(f"Removed from {path}.")


def _described(
    name: str, url: str, model: str | None, key_env: str | None, key_file: Path | None, key: str | None
) -> Endpoint:
    """The endpoint to keep. Raises EndpointError, for a key in the place of a name too, without repeating it."""
    from ipytune.endpoints.errors import BadRequest
    from ipytune.endpoints.naming import from_words, looks_like_key
    from ipytune.endpoints.records import described

    words = [name, url, model or "", str(key_file or ""), key_env or ""]
    if key is not None or any(looks_like_key(word) for word in words):
        raise BadRequest(
            "A key is not written here.",
            "The file is plain text; and what is typed on a command line stays in the shell's history.",
            "Put the key into an environment variable (--key-env NAME) or into a file that only you can read "
            "(--key-file PATH). Better exchange the one that was typed for a new one.",
        )
    if not name.strip() or "://" in name:
        raise BadRequest("That is no name for an endpoint.", "", "Use a short word.")
    if key_file is not None:
        key_file = key_file.expanduser().absolute()
        if not key_file.is_file():
            raise BadRequest("The file given with --key-file is not there.", "", "Write the key into it first.")
    if model is None:
        model = from_words(url, key_env=key_env, key_file=key_file).model
    endpoint = described(name=name, base_url=url, model=model, key_env=key_env, key_file=key_file)
    host = endpoint.base_url.split("//")[1]
    if (key_env or key_file) and endpoint.base_url.startswith("http://") and not host.startswith(("127.", "localhost")):
        typer.echo("Note: over http:// the key travels unencrypted; use https:// where the server has it.", err=True)
    return endpoint


def _healths(endpoints: list[Endpoint]) -> list[Health]:
    import asyncio

    from ipytune.endpoints.background import run, shared_client

    async def all_of_them() -> list[Health]:
        return list(await asyncio.gather(*(shared_client().health(endpoint) for endpoint in endpoints)))

    return run(all_of_them())


def _show_health(endpoints: list[Endpoint], sources: dict[str, str], results: list[Health]) -> None:
    from ipytune.endpoints.format import seconds
    from ipytune.endpoints.untrusted import visible

    if not endpoints:
        typer.echo("No endpoints yet. Add one: ipytune endpoints add NAME URL --key-env VARIABLE")
        return
    console = Console()
    # what `list` shows, too, is left out where it would fold every line
    known = ("name", "model", "source", "URL", "key") if console.width >= _WIDE else ("name", "model")
    table = _table(*known, "health", "models there")
    for endpoint, health in zip(endpoints, results, strict=True):
        word, colour = ("answers", "yellow") if health.reachable else ("no answer", "red")
        if health.well:
            word, colour = "well", "green"
        shown = Text(f"{word} ({seconds(health.seconds)})" if health.reachable else word, colour)
        more = f" and {len(health.models) - _MODELS_SHOWN} more" if len(health.models) > _MODELS_SHOWN else ""
        cells = _cells(endpoint, sources.get(endpoint.name, "–"))[: len(known)]
        table.add_row(*cells, shown, Text(visible(", ".join(health.models[:_MODELS_SHOWN]) + more)))
    console.print(table)
    for endpoint, health in zip(endpoints, results, strict=True):
        if health.problem:
            console.print(Text(visible(f"{endpoint.name}: {health.problem}"), "red"), soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _cells(endpoint: Endpoint, source: str) -> tuple[Text, ...]:
    from ipytune.endpoints.untrusted import visible

    cells = (endpoint.name, endpoint.model, source, endpoint.base_url, key_words(endpoint))
    return tuple(Text(visible(cell)) for cell in cells)


def key_words(endpoint: Endpoint) -> str:
    """Where the key is, and whether there is one now; never the key."""
    from ipytune.endpoints.errors import KeyMissing

    if endpoint.key_env is None and endpoint.key_file is None:
        return "none"
    try:
        endpoint.read_key()
    except KeyMissing:
        there = False
    else:
        there = True
    if endpoint.key_env is not None:
        return f"${endpoint.key_env}" + ("" if there else " (not set)")
    return f"{endpoint.key_file}" + ("" if there else " (not readable)")


def _plain(endpoint: Endpoint, source: str) -> dict[str, Any]:
    return {**endpoint.model_dump(mode="json"), "source": source, "key": key_words(endpoint)}


def _plain_health(health: Health) -> dict[str, Any]:
    return {
        "well": health.well,
        "reachable": health.reachable,
        "seconds": round(health.seconds, 4),
        "models": list(health.models),
        "problem": health.problem,
    }


def _tell(catalogue: Catalogue) -> None:
    from ipytune.endpoints.untrusted import visible

    for problem in catalogue.problems:
        typer.echo(visible(problem), err=True)


def _fail(message: str) -> NoReturn:
    from ipytune.endpoints.untrusted import visible

    typer.echo(f"ipytune: {visible(message)}", err=True)
    raise typer.Exit(1)
