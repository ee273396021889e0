"""`ipytune serve` and `ipytune chat`. cli.py mounts `app`; torch is imported by neither."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

app = typer.Typer()


@app.command()
def serve(
    model: Annotated[str, typer.Option(help="A model directory, a model id, or a shipped model's name.")] = (
        "smollm2-135m-instruct"
    ),
    run_dir: Annotated[
        Path | None, typer.Option(help="A run (or an adapter) to serve beside the base, as a second model.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 finds a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve a model, and what was tuned from it, behind an OpenAI-compatible URL until Ctrl-C."""
    from ipytune.endpoints.serve import ServeFailed
    from ipytune.endpoints.serve import serve as start

    # A batch system ends a job with SIGTERM: take it as Ctrl-C, so that the server is stopped and cleaned up.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with start(model, run_dir, host=host, port=port, progress=_say) as server:
            for endpoint in server.endpoints:
                typer.echo(endpoint.model_dump_json(exclude_none=True))
            _say(f"The key is in {server.base.key_file}. Stop with Ctrl-C.")
            code = server.wait()
            typer.echo(f"The server ended by itself (exit code {code}).\n{server.log_tail()}", err=True)
            raise typer.Exit(1)
    except (ServeFailed, FileNotFoundError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _say("Stopped.")


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


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
