"""`ipytune mock`. cli.py mounts `app`."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

app = typer.Typer()


@app.command()
def mock(
    ttft: Annotated[float, typer.Option(help="Seconds to the first token.")] = 0.2,
    itl: Annotated[float, typer.Option(help="Seconds between tokens.")] = 0.02,
    jitter: Annotated[float, typer.Option(help="Each token comes up to so many seconds later, at random.")] = 0.0,
    tokens: Annotated[int, typer.Option(help="Length of an answer, where nothing else says it.")] = 64,
    text: Annotated[str | None, typer.Option(help="The answer to everything.")] = None,
    echo: Annotated[bool, typer.Option("--echo", help="The answer is the question.")] = False,
    answers: Annotated[
        Path | None, typer.Option(help="JSON file: prompt -> answer, or prompt -> {model: answer}.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model that it lists; may be repeated.")] = None,
    slots: Annotated[int, typer.Option(help="Answers at once; others wait. 0: no limit.")] = 0,
    error_rate: Annotated[float, typer.Option(help="Share of requests that are refused.")] = 0.0,
    error_status: Annotated[int, typer.Option(help="With which status.")] = 500,
    key_env: Annotated[str | None, typer.Option(help="NAME of the environment variable with the key it wants.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="The file with the key it wants.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any other field of Behaviour; may be repeated."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 finds a free one.")] = 0,
    processes: Annotated[int, typer.Option(min=1, max=256, help="So many share the port, one core each.")] = 1,
) -> None:
    """A server with known answers, known times and known faults, until Ctrl-C. For trying and measuring clients."""
    from ipytune.mock.behaviour import Behaviour
    from ipytune.mock.server import MockFailed, start_mock

    fields: dict[str, Any] = {
        "ttft": ttft,
        "itl": itl,
        "jitter": jitter,
        "tokens": tokens,
        "text": text,
        "echo": echo,
        "models": model or ["mock"],
        "slots": slots,
        "error_rate": error_rate,
        "error_status": error_status,
    }
    try:
        fields["answers"] = _read_answers(answers)
        fields["key"] = _read_key(key_env, key_file)
        fields.update(_read_changes(change or []))
        # A batch system ends a job with SIGTERM: take it as Ctrl-C.
        signal.signal(signal.SIGTERM, _interrupt)
        with start_mock(Behaviour().changed(fields), host=host, port=port, processes=processes) as server:
            typer.echo(server.url)
            _say(_example(server.url, fields["models"][0], key_env, key_file))
            _say(f"Counts and times: {server.root}/mock/stats, /mock/truth, /metrics. Stop with Ctrl-C.")
            code = server.wait()
            _say(f"The mock server ended by itself (exit code {code}).")
            raise typer.Exit(1)
    except (ValueError, MockFailed) as error:
        _say(str(error))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _say("Stopped.")


def _example(url: str, model: str, key_env: str | None, key_file: Path | None) -> str:
    """A line to try it with. The key is put in by the shell, so that it is not shown here."""
    key = f"${key_env}" if key_env else f"$(cat {shlex.quote(str(key_file))})" if key_file else ""
    header = f' -H "Authorization: Bearer {key}"' if key else ""
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "hello"}]})
    return f"curl -N {url}/chat/completions{header} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def _read_answers(file: Path | None) -> Any:
    if file is None:
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        remedy = "Name a JSON file with an object of prompts and answers."
        raise ValueError(f"--answers: {file} cannot be read: {why}. {remedy}") from None


def _read_key(variable: str | None, file: Path | None) -> str | None:
    if variable is not None and file is not None:
        raise ValueError("--key-env, --key-file: give one of them.")
    if variable is not None:
        value = os.environ.get(variable, "").strip()
        if not value:
            raise ValueError(f"--key-env: the environment variable {variable} is not set. Set it to the key first.")
        return value
    if file is not None:
        try:
            value = file.expanduser().read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise ValueError(f"--key-file: {file} cannot be read: {why}. Write the key on one line into it.") from None
        if not value:
            raise ValueError(f"--key-file: {file} is empty. Write the key on one line into it.")
        return value
    return None


def _read_changes(changes: list[str]) -> dict[str, Any]:
    """FIELD=VALUE, where the value is JSON, or text as it stands."""
    fields = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"--set: “{change}” has no value. Write FIELD=VALUE, for example --set hang_after=3.")
        if name == "key":
            raise ValueError("--set: others can read a command line. Name the key's place: --key-env or --key-file.")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value
    return fields


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
