"""An adapter on disk and the base that it belongs to: what merging, proving, describing and serving start from.

Importing this module does not import torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipytune import models
from ipytune.lora.config import ConfigError
from ipytune.runs import Run

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# Files of a model that are not its weights, whatever model it is: what a copy of it needs beside them.
_NOT_COPIED = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".index.json")


class AdapterError(ValueError):
    """An adapter, a model or a file that cannot be used as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Adapter:
    """A directory in PEFT's format. `base` is a directory or an id on a model hub; settings is adapter_config.json."""

    path: Path
    base: str
    settings: dict[str, Any]
    run: Run | None = None

    @property
    def rank(self) -> int:
        """The greatest of any layer: what a server must allow for."""
        return max([int(self.settings["r"]), *map(int, (self.settings.get("rank_pattern") or {}).values())])

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    def base_directory(self) -> Path:
        """Where the base's files are; one on a model hub is fetched, or found in its cache.

        Raises ModelNotFound when it cannot be had.
        """
        found = models.resolve(self.base)
        if isinstance(found, Path):
            return found
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(found, ignore_patterns=["*.bin", "*.pth", "*.gguf", "*.h5", "original/*"]))
        except Exception as error:  # whatever the hub's client raises: unknown name, no permission, no network
            raise models.ModelNotFound(
                f"The base model {found} cannot be had: {type(error).__name__}. Check the name and the network, or "
                f"give its directory as base."
            ) from error


def open_adapter(source: Run | Path | str, base: str | Path | None = None) -> Adapter:
    """The adapter of a run (or of its directory), or one that lies in a directory of its own.

    base: the model that it belongs to; by default the run's, else the one that the adapter's own file names.
    Raises AdapterError when there is none, or when it is not LoRA.
    """
    run = source if isinstance(source, Run) else _run_at(Path(source).expanduser())
    path = run.adapter if run is not None else Path(source).expanduser()  # type: ignore[arg-type]
    if not (path / CONFIG).is_file() or not (path / WEIGHTS).is_file():
        raise AdapterError(
            f"{path} holds no adapter ({CONFIG} and {WEIGHTS}). Wait until the run has completed or was stopped, or "
            f"name the directory of a run or of an adapter."
        )
    try:
        settings = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        kind, rank = settings["peft_type"], int(settings["r"])
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{path / CONFIG} is damaged ({error!r}). Take the adapter of another checkpoint."
        ) from error
    if kind != "LORA" or rank < 1:
        raise AdapterError(
            f"{path} holds an adapter of the kind {kind}, not LORA. Only LoRA adapters are handled here."
        )
    named = base or (run.config.model if run is not None else settings.get("base_model_name_or_path"))
    if not named:
        raise AdapterError(f"{path / CONFIG} names no base model. Give it as base (a directory, or a model's name).")
    return Adapter(path, str(named), settings, run)


def tokenizer_directory(adapter: Adapter) -> Path:
    """Whose tokenizer and template the adapter was trained with: its own where they were saved with it."""
    return adapter.path if (adapter.path / "tokenizer.json").is_file() else adapter.base_directory()


def companions(directory: Path) -> list[Path]:
    """The files beside a model's weights: configuration, tokenizer, template, licence; no README (we write one)."""
    return [
        file
        for file in sorted(directory.iterdir())
        if file.is_file()
        and not file.name.endswith(_NOT_COPIED)
        and not file.name.startswith((".", "README"))
        and file.name not in {CONFIG, "proof.json"}
    ]


def _run_at(path: Path) -> Run | None:
    if not (path / "config.yaml").is_file():
        return None
    run = Run.open(path)
    try:
        _ = run.config
    except ConfigError as error:
        raise AdapterError(
            f"{path} is no run that can be read: {error}. Name its adapter directory instead."
        ) from error
    return run
