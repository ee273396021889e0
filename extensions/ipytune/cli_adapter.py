"""`ipytune merge`, `gguf` and `card`: the adapter's way out. cli.py mounts `app`; torch is imported inside only."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer()


class Dtype(str, Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Kind(str, Enum):
    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


@app.command()
def merge(
    source: Annotated[Path, typer.Argument(help="A run directory, or the directory of an adapter.")],
    out: Annotated[Path, typer.Option(help="The model directory to write; must not exist.")],
    dtype: Annotated[Dtype | None, typer.Option(help="Of the weights; by default the base's.")] = None,
    base: Annotated[str | None, typer.Option(help="The base model, where the adapter does not name it.")] = None,
    check: Annotated[bool, typer.Option(help="Prove that it answers as base and adapter do (loads both).")] = True,
) -> None:
    """Merge an adapter into its base: a plain model directory that everything loads."""
    from ipytune.adapter.source import AdapterError
    from ipytune.models import ModelNotFound

    try:
        from ipytune.adapter import merge as merging
        from ipytune.adapter.card import write_card

        written = merging.merge(source, out, dtype.value if dtype else None, base)
        typer.echo(f"merged: {written}")
        alike = _prove(source, base, merged=written) if check else True
        if (source / "config.yaml").is_file():
            write_card(source, written)
    except (AdapterError, ModelNotFound, FileNotFoundError) as error:
        _fail(str(error))
    if not alike:
        raise typer.Exit(1)


@app.command()
def gguf(
    model_dir: Annotated[Path, typer.Argument(help="A model directory, as `ipytune merge` writes it.")],
    out: Annotated[Path, typer.Option(help="The file to write; must not exist.")],
    kind: Annotated[Kind, typer.Option(help="Type of the weights.")] = Kind.f16,
    against: Annotated[
        Path | None, typer.Option(help="A run or adapter: prove that the file answers as it does.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The base model, where the adapter does not name it.")] = None,
) -> None:
    """Write a model as one GGUF file, for llama.cpp and what is built on it."""
    from ipytune.adapter.source import AdapterError
    from ipytune.models import ModelNotFound

    try:
        from ipytune.adapter import gguf as writing

        written = writing.gguf(model_dir, out, kind.value)
        typer.echo(f"gguf: {written} ({written.stat().st_size / 1e6:.0f} MB)")
        alike = _prove(against, base, merged=model_dir, gguf=written) if against is not None else True
    except (AdapterError, ModelNotFound, FileNotFoundError) as error:
        _fail(str(error))
    if not alike:
        raise typer.Exit(1)


@app.command()
def card(
    run_dir: Annotated[Path, typer.Argument(help="The directory of a run.")],
    merged: Annotated[Path | None, typer.Option(help="A model merged from it: the card is written there too.")] = None,
) -> None:
    """Write the model card (README.md) of a run beside its adapter."""
    from ipytune.adapter.card import write_card
    from ipytune.adapter.source import AdapterError

    try:
        for path in write_card(run_dir, merged):
            typer.echo(f"card: {path}")
    except (AdapterError, FileNotFoundError) as error:
        _fail(str(error))


def _prove(source: Path, base: str | None, merged: Path, gguf: Path | None = None) -> bool:
    from ipytune.adapter.verify import verify

    run = (source / "config.yaml").is_file()
    proof = verify(source, merged, gguf, base=base, out=source / "proof.json" if run else None)
    typer.echo(str(proof))
    return proof.passed


def _fail(message: str) -> NoReturn:
    typer.echo(f"ipytune: {message}", err=True)
    raise typer.Exit(1)
