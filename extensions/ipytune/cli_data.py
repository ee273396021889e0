"""`ipytune check`: what is wrong with a data set, and what of it is learned, before anything is trained.

`cli.py` mounts `check`. Without a model only the conversations are looked at; with one, its tokenizer too, no weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from ipytune.data.findings import SHOWN, DatasetError, Finding
from ipytune.data.validate import Dataset, load
from ipytune.lora.config import ConfigError, RunConfig
from ipytune.models import ModelNotFound, resolve


def check(
    data: Annotated[Path, typer.Argument(help="A run's YAML file, or a data file (JSON lines, JSON, CSV, Parquet).")],
    model: Annotated[
        str | None, typer.Option(help="Its tokenizer is used. Default: the YAML file's; else none.")
    ] = None,
    preview: Annotated[int, typer.Option(min=0, help="Show so many conversations of the first batch.")] = 0,
) -> None:
    """Check a data set before training: findings with file, line and remedy. Exit status 1 when one is an error."""
    console, errors = Console(), Console(stderr=True)
    try:
        config = settings(data, model)
        dataset = load(config)
        if model is None and not _is_config(data):
            _tell(console, dataset.warnings)
            console.print(f"{_counted(dataset)}. Name a --model to see its tokens.", highlight=False, soft_wrap=True)
            return
        _with_tokenizer(console, config, dataset, preview)
    except DatasetError as error:
        _tell(errors, error.findings)
        errors.print(Text(f"{len(error.findings)} to mend before training.", style="red"))
        raise typer.Exit(1) from None
    except (ModelNotFound, OSError, ValueError) as error:
        errors.print(Text("ipytune: ", style="red").append(str(error), style="default"), soft_wrap=True)
        raise typer.Exit(1) from None


def settings(data: Path, model: str | None) -> RunConfig:
    """The run's configuration, or one for a bare data file. Raises ConfigError, FileNotFoundError."""
    if not _is_config(data):
        return RunConfig(train_file=data) if model is None else RunConfig(train_file=data, model=model)
    config = RunConfig.from_yaml(data)
    if model is None:
        return config
    try:
        return RunConfig.model_validate(config.model_dump() | {"model": model})
    except ValidationError as error:
        raise ConfigError(f"--model: {error}") from error


def _is_config(path: Path) -> bool:
    return path.suffix.lower() in {".yaml", ".yml"}


def _with_tokenizer(console: Console, config: RunConfig, dataset: Dataset, shown: int) -> None:
    from ipytune.data.preview import preview
    from ipytune.data.report import inspect
    from ipytune.data.tokenizer import load_tokenizer, vocabulary_size

    source = resolve(config.model)
    tokenizer = load_tokenizer(source)
    report = inspect(dataset, tokenizer, config, vocabulary_size(source)).checked()
    _tell(console, report.warnings)
    if shown:
        batch = preview(report.train, tokenizer, config, limit=shown)
        console.print(batch.text(brackets=not console.is_terminal), soft_wrap=True)
    console.print(f"{report}.", highlight=False, soft_wrap=True)


def _tell(console: Console, findings: list[Finding] | tuple[Finding, ...]) -> None:
    for finding in findings[:SHOWN]:
        word, style = ("warning ", "yellow") if finding.warning else ("error ", "red")
        console.print(Text(word, style=style).append(str(finding), style="default"), soft_wrap=True)
    if len(findings) > SHOWN:
        console.print(f"… and {len(findings) - SHOWN} more", highlight=False)


def _counted(dataset: Dataset) -> str:
    held_out = f", {len(dataset.held_out):,} held out" if dataset.held_out else ""
    return f"{len(dataset.train):,} conversations to train on{held_out}; none of them is wrong"
