"""`ipytune serve`. cli.py mounts `app`; torch is not imported here."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

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


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
