"""The machine and the packages that a notebook runs on, as its first table and its metrics name them. Without torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ipytune.lesson.kinds import nearest
from ipytune.memory.available import available
from ipytune.processor import cpu_name, usable_cpus

_ALWAYS = ("ipytune", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Surroundings:
    """Sizes in GB (10**9 bytes)."""

    versions: dict[str, str]
    cpu: str
    cores: int
    memory_gb: float
    memory_free_gb: float
    gpus: tuple[str, ...]

    def hardware(self) -> dict[str, object]:
        """As metrics.json names it."""
        return {"cpu": self.cpu, "cores": self.cores, "memory_gb": self.memory_gb, "gpus": list(self.gpus)}

    def table(self, where: str) -> str:
        """Five short lines. where: the folder of the results, as it was given."""
        rows = {
            "versions": ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            "cores": f"{self.cores} ({self.cpu})",
            "memory": f"{self.memory_free_gb:.1f} of {self.memory_gb:.1f} GB free",
            "GPUs": ", ".join(self.gpus) or "none",
            "results": where,
        }
        return "\n".join(f"{name:<10}{value}" for name, value in rows.items())


def surroundings(packages: Iterable[str]) -> Surroundings:
    """Looks now; nvidia-smi is asked for the GPUs."""
    there = available()
    host = there.host_limit
    return Surroundings(
        versions=versions(packages),
        cpu=cpu_name(),
        cores=usable_cpus(),
        memory_gb=round(host.total / 1e9, 1),
        memory_free_gb=round(host.free / 1e9, 1),
        gpus=tuple(limit.name for limit in there.gpus),
    )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python, of what every notebook uses, and of these packages; what is not installed is left out."""
    found = {"python": platform.python_version()}
    by_module = _distributions()
    for name in dict.fromkeys((*_ALWAYS, *packages)):
        for distribution in by_module.get(name, [name])[:1]:
            try:
                found[name] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                pass
    return found


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Of each module that is installed; every package's list of files is read for it."""
    return importlib.metadata.packages_distributions()


def missing(packages: Iterable[str]) -> list[str]:
    """Those that cannot be imported; none is imported to find out."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def free_gb(folder: Path) -> float:
    """Where a folder is or will be."""
    return shutil.disk_usage(nearest(folder)).free / 1e9
