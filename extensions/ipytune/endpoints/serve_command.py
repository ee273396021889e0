"""`ipytune serve`, and `ipytune adapters load | unload | list`. cli.py mounts `app`; torch is not imported here."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

app = typer.Typer()
adapters = typer.Typer(
    help="Adapters of a server that runs: load a run beside its base, take it away, list them.", no_args_is_help=True
)
app.add_typer(adapters, name="adapters")


class EngineOption(str, Enum):
    auto = "auto"
    vllm = "vllm"
    transformers = "transformers"


EndpointOption = Annotated[
    str, typer.Option("--endpoint", help="The base's endpoint: a name in the catalogue, or a URL.")
]
ModelOption = Annotated[str | None, typer.Option("--model", help="The base model's name there, with a URL.")]
KeyEnvOption = Annotated[str | None, typer.Option("--key-env", help="NAME of the variable with the key, with a URL.")]
KeyFileOption = Annotated[Path | None, typer.Option("--key-file", help="The file with the key, with a URL.")]


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A model directory, a model id, or a shipped model's name.")] = (
        "smollm2-135m-instruct"
    ),
    run_dir: Annotated[
        Path | None, typer.Option(help="A run (or an adapter) to serve beside the base, as a second model.")
    ] = None,
    engine: Annotated[EngineOption, typer.Option(help="auto: vLLM where it can, else transformers.")] = (
        EngineOption.auto
    ),
    name: Annotated[str | None, typer.Option(help="Of the base in the catalogue; default: the model's.")] = None,
    adapter: Annotated[
        list[str] | None, typer.Option("--adapter", help="NAME=PATH of a further run or adapter. Repeatable.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="Use at most so many; default: the fewest that hold the model.")
    ] = None,
    max_lora_rank: Annotated[
        int | None, typer.Option(min=0, help="Of adapters loaded later; default 32. 0 serves none.")
    ] = None,
    extra: Annotated[
        list[str] | None, typer.Option("--extra", help="A further option of vLLM, as --extra=--dtype=half. Repeatable.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 finds a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    timeout: Annotated[float | None, typer.Option(min=1, help="Seconds until it must be ready.")] = None,
) -> None:
    """Serve a model, and what was tuned from it, behind an OpenAI-compatible URL until Ctrl-C."""
    from ipytune.endpoints.serve import serve as start

    # A batch system ends a job with SIGTERM: take it as Ctrl-C, so that the server is stopped and cleaned up.
    signal.signal(signal.SIGTERM, _interrupt)
    ready = False
    with _told():
        try:
            with start(
                model,
                run_dir,
                engine=engine.value,
                adapters=dict(_named(word) for word in adapter or []),
                gpus=gpus,
                host=host,
                port=port,
                name=name,
                max_lora_rank=max_lora_rank,
                extra=tuple(extra or ()),
                timeout=timeout,
                progress=_say,
            ) as server:
                ready = True
                for endpoint in server.endpoints:
                    typer.echo(endpoint.model_dump_json(exclude_none=True))
                if server.proxy_url is not None:
                    _say(f"Through Jupyter, with a token of the hub: {server.proxy_url}")
                _say(f"The key is in {server.base.key_file}. Stop with Ctrl-C.")
                code = server.wait()
                typer.echo(f"The server ended by itself (exit code {code}).\n{server.log_tail()}", err=True)
                raise typer.Exit(1)
        except KeyboardInterrupt:
            _say("Stopped.")
            if not ready:
                raise typer.Exit(130) from None


@adapters.command("load")
def load(
    source: Annotated[Path, typer.Argument(help="A run directory, or the directory of an adapter.")],
    endpoint: EndpointOption,
    name: Annotated[str | None, typer.Option(help="Of the tuned model there; default: the run's.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Exchange one of that name.")] = False,
    any_base: Annotated[bool, typer.Option("--any-base", help="Though the base has another name there.")] = False,
    model: ModelOption = None,
    key_env: KeyEnvOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Load an adapter into a server that runs, beside its base; prints the tuned model's endpoint."""
    from ipytune.endpoints.naming import from_words
    from ipytune.endpoints.serve import load_adapter

    with _told():
        base = from_words(endpoint, model=model, key_env=key_env, key_file=key_file)
        tuned = load_adapter(base, source, name, replace=replace, any_base=any_base)
        typer.echo(tuned.model_dump_json(exclude_none=True))


@adapters.command("unload")
def unload(
    adapter: Annotated[str, typer.Argument(help="The adapter's name on the server.")],
    endpoint: EndpointOption,
    model: ModelOption = None,
    key_env: KeyEnvOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Take an adapter from a server that runs."""
    from ipytune.endpoints.naming import from_words
    from ipytune.endpoints.serve import unload_adapter

    with _told():
        base = from_words(endpoint, model=model, key_env=key_env, key_file=key_file)
        unload_adapter(base.model_copy(update={"name": adapter, "model": adapter}))
        _say(f"{adapter} is served no more.")


@adapters.command("list")
def listed(
    endpoint: EndpointOption,
    model: ModelOption = None,
    key_env: KeyEnvOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """The models of a server, one a line."""
    from ipytune.endpoints.background import models
    from ipytune.endpoints.naming import from_words

    with _told():
        for found in models(from_words(endpoint, model=model, key_env=key_env, key_file=key_file)):
            typer.echo(found)


@contextmanager
def _told() -> Iterator[None]:
    """What a person can act on becomes a sentence and exit code 1; Ctrl-C 130."""
    from ipytune.adapter.source import AdapterError
    from ipytune.endpoints.engines.failure import ServeFailed
    from ipytune.endpoints.errors import EndpointError
    from ipytune.models import ModelNotFound

    try:
        yield
    except (ServeFailed, EndpointError, AdapterError, ModelNotFound, OSError, ValueError) as error:
        typer.echo(f"ipytune: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _named(word: str) -> tuple[str, Any]:
    name, separator, path = word.partition("=")
    if not separator or not name or not path:
        raise ValueError(f"--adapter {word}: give it as NAME=PATH, for example --adapter first=runs/first.")
    return name, Path(path)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
