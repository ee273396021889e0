"""`ipytune run`: a notebook from its first cell to its last, here or through a hub, and on from where it failed.

`cli.py` mounts `app`. papermill takes two seconds to import, so only the command itself does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ipytune.cli_pairs import Pairs

app = typer.Typer()


@app.command(cls=Pairs)
def run(
    notebook: Annotated[Path, typer.Argument(help="The notebook. It is not changed.")],
    output: Annotated[Path | None, typer.Argument(help="The executed notebook. Default: IN.out.ipynb.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME VALUE", help="One of its parameters.")
    ] = None,
    parameter_raw: Annotated[
        list[str] | None, typer.Option("--parameter-raw", "-r", metavar="NAME VALUE", help="One that is a text.")
    ] = None,
    parameters_file: Annotated[
        list[Path] | None, typer.Option("--parameters-file", "-f", help="YAML or JSON with parameters.")
    ] = None,
    parameters_yaml: Annotated[
        list[str] | None, typer.Option("--parameters-yaml", "-y", help="Parameters as YAML: 'RANKS: [8, 16]'.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="`hub` or `resumable` (here). Default: the hub, if one is named.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last finished cell of the output that is there.")
    ] = False,
    hub: Annotated[
        str | None, typer.Option(help="Address of a hub, as in your browser. Default: $OBERALP_HUB.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Of the session on the hub.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Of the session, such as 01:00:00.")] = None,
    environment: Annotated[str | None, typer.Option(help="Of the session.")] = None,
    target: Annotated[str | None, typer.Option(help="Of the session.")] = None,
    account: Annotated[str | None, typer.Option(help="Of the session.")] = None,
    partition: Annotated[str | None, typer.Option(help="Of the session.")] = None,
    reservation: Annotated[str | None, typer.Option(help="Of the session.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File (mode 600) with a token of the hub.")] = None,
    cwd: Annotated[
        Path | None, typer.Option(help="Where the notebook's relative paths begin; on a hub, below your home.")
    ] = None,
    state: Annotated[
        bool, typer.Option("--state/--no-state", help="Keep the variables of finished cells for --resume.")
    ] = True,
) -> None:
    """Run a notebook. Its output is saved as it goes; after a failure, --resume goes on where it stopped."""
    from ipytune.papermill.run_command import Request
    from ipytune.papermill.run_command import run as run_notebook

    place = {
        "hub_url": hub,
        "profile": profile,
        "runtime": runtime,
        "environment": environment,
        "target": target,
        "account": account,
        "partition": partition,
        "reservation": reservation,
        "token_file": str(token_file) if token_file else None,
        "session_cwd": str(cwd) if cwd else None,
    }
    request = Request(
        notebook=notebook,
        output=output or notebook.with_suffix(".out.ipynb"),
        pairs=_split(parameter),
        texts=_split(parameter_raw),
        files=parameters_file or (),
        yaml=parameters_yaml or (),
        engine=engine,
        resume=resume,
        state=state,
        cwd=cwd,
        place={name: value for name, value in place.items() if value},
    )
    raise typer.Exit(run_notebook(request, ["ipytune", *sys.argv[1:]]))


def _split(pairs: list[str] | None) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (pair.partition("=") for pair in pairs or ())]
