"""The models of one server as a model-hub cache made of links: short names instead of paths, nothing copied.

`transformers serve` loads what a request names, from a directory or from the hub's cache. Pointed (HF_HUB_CACHE,
offline) at a cache that holds just the models to be served, it lists exactly those, answers to short names, and an
adapter needs no merging: its files beside the base's configuration and tokenizer load as base plus adapter.

The form, from huggingface_hub's documentation: models--ORG--NAME/refs/main holds a revision, snapshots/REVISION/ the
files of that revision.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

_REVISION = "0" * 40
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".safetensors.index.json", ".bin.index.json")


@dataclass(frozen=True)
class Served:
    """One model of a server: its name there, the base's directory, and the adapter's when it is a tuned one."""

    name: str
    base: Path
    adapter: Path | None = None


def served_name(text: str) -> str:
    """A valid model id near `text`: letters, digits, single '.', '_', '-', at most 96 characters, and one '/'.

    >>> served_name("My run (2)"), served_name("Qwen/Qwen3-0.6B"), served_name("..--")
    ('My-run-2', 'Qwen/Qwen3-0.6B', 'model')
    """
    parts = [_slug(part) for part in text.split("/")[-2:]]
    return "/".join(part for part in parts if part) or "model"


def write_cache(root: Path, models: list[Served]) -> None:
    """Create the cache under `root`, which must not hold one yet.

    Raises FileNotFoundError when a base has no config.json or an adapter no adapter_config.json; ValueError when two
    models have one name.
    """
    names = [model.name for model in models]
    if len(set(names)) != len(names):
        raise ValueError(f"two models of one server have the same name: {', '.join(sorted(names))}")
    for model in models:
        add(root, model)


def add(root: Path, model: Served) -> None:
    """Put one more model into the cache; a server that runs answers to it from the next request on.

    Written aside and renamed, so that nobody sees half of it. Raises as write_cache does, and FileExistsError when the
    cache holds one of that name.
    """
    repository = _repository(root, model.name)
    if repository.exists():
        raise FileExistsError(f"there is a model “{model.name}” already")
    files = _files(model)
    root.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        snapshot = aside / "snapshots" / _REVISION
        snapshot.mkdir(parents=True)
        (aside / "refs").mkdir()
        (aside / "refs" / "main").write_text(_REVISION, encoding="ascii")
        for name, source in files.items():
            (snapshot / name).symlink_to(source)
        if model.adapter is not None:
            # What the adapter's own file says of its base may be a name that only its trainer understood.
            settings = json.loads((model.adapter / "adapter_config.json").read_text(encoding="utf-8"))
            settings["base_model_name_or_path"] = str(model.base.resolve())
            (snapshot / "adapter_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        aside.rename(repository)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def remove(root: Path, name: str) -> None:
    """Take a model from the cache. Its files, which are links, are where they were."""
    shutil.rmtree(_repository(root, name))


def _repository(root: Path, name: str) -> Path:
    return root / f"models--{name.replace('/', '--')}"


def _files(model: Served) -> dict[str, Path]:
    """File name in the snapshot -> the file it links to."""
    if not (model.base / "config.json").is_file():
        raise FileNotFoundError(
            f"{model.base} is no model directory: it has no config.json. Give a directory as save_pretrained writes it."
        )
    files = {file.name: file.resolve() for file in model.base.iterdir() if file.is_file()}
    if model.adapter is None:
        return files
    if not (model.adapter / "adapter_config.json").is_file():
        raise FileNotFoundError(
            f"{model.adapter} is no adapter: it has no adapter_config.json. Train first; a stopped run leaves one too."
        )
    files = {name: file for name, file in files.items() if not name.endswith(_WEIGHTS)}
    # A tokenizer or chat template saved with the adapter is the one it was trained with, so it goes before the base's.
    own = {file.name: file.resolve() for file in model.adapter.iterdir() if file.is_file()}
    return {**files, **{name: file for name, file in own.items() if name not in ("adapter_config.json", "README.md")}}


def _slug(text: str) -> str:
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", text)
    text = re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", text))
    return text[:48].strip("-.")
