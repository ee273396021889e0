"""`ipytune chat`. cli.py mounts `app`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer()


@app.command()
def chat(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    url: Annotated[str, typer.Option(help="The API's URL, for example http://127.0.0.1:8000/v1.")],
    model: Annotated[str, typer.Option(help="The model's name on that server.")],
    key_env: Annotated[str | None, typer.Option(help="NAME of the environment variable that holds the key.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="The file that holds the key.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 512,
    temperature: Annotated[float | None, typer.Option(min=0, max=2)] = None,
) -> None:
    """Ask an endpoint one question, stream the answer, and say how quick it was (on standard error)."""
    from ipytune.endpoints.background import chat as ask
    from ipytune.endpoints.errors import EndpointError
    from ipytune.endpoints.format import summary
    from ipytune.endpoints.records import described

    words = sys.stdin.read() if prompt == "-" else prompt
    options: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    try:
        endpoint = described(name=model, base_url=url, model=model, key_env=key_env, key_file=key_file)
        answer = ask(
            endpoint,
            words,
            on_piece=lambda piece: typer.echo(piece.text, nl=False) if piece.kind == "content" else None,
            max_tokens=max_tokens,
            **options,
        )
    except EndpointError as error:
        typer.echo(f"\n{error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("\nCancelled.", err=True)
        raise typer.Exit(130) from None
    typer.echo()
    typer.echo(summary(answer.metrics), err=True)
