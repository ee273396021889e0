"""One notebook from its parameters to its numbers."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ipytune.lesson.findings import (
    ParameterError,
    finding_of_disk,
    finding_of_gpus,
    finding_of_packages,
    findings_of_values,
)
from ipytune.lesson.kinds import Kind
from ipytune.lesson.numbers import plain
from ipytune.lesson.parameters import parameters
from ipytune.lesson.surroundings import Surroundings, free_gb, missing, surroundings

T = TypeVar("T")


class Lesson:
    """`check` first: everything else is known after it. `name`: the notebook's file name without its ending."""

    def __init__(self, name: str, namespace: Mapping[str, Any]) -> None:
        self.name = name
        self.parameters: dict[str, object] = {}
        self._namespace = namespace
        self._began = time.monotonic()
        self._here: Surroundings | None = None

    def check(
        self,
        *,
        packages: Collection[str] = (),
        gpus: Mapping[str, int] | None = None,
        disk_gb: float = 0,
        **kinds: Kind,
    ) -> None:
        """Raises one ParameterError with everything that is wrong; else makes OUT_DIR and prints where we are.

        kinds: what each parameter may be, every one of them; packages: modules to be imported later; gpus: how many a
        profile needs; disk_gb: room for the results.
        """
        self._began = time.monotonic()
        given = parameters(self._namespace, kinds)
        found = findings_of_values(given, kinds)
        found += finding_of_packages(missing(packages))
        here = surroundings(packages)
        profile = given.get("PROFILE", "smoke")
        if isinstance(profile, str) and (wanted := (gpus or {}).get(profile, 0)):
            smoke = "PROFILE" in kinds and kinds["PROFILE"].complaint("smoke") is None
            found += finding_of_gpus(profile, wanted, len(here.gpus), smoke)
        where = given.get("OUT_DIR", self.name)
        if isinstance(where, str):
            found += finding_of_disk(where, disk_gb, free_gb(Path(where).expanduser()) if disk_gb else math.inf)
        if found:
            raise ParameterError(self.name, found)
        self.parameters = {name: given[name] for name in kinds}
        self._here = here
        self.out.mkdir(parents=True, exist_ok=True)
        print(f"{self.name}, profile {self.profile}\n{here.table(str(self.out))}")

    def __getstate__(self) -> dict[str, Any]:
        """For a run that goes on in another kernel: without the notebook's variables, with the seconds until now."""
        return {**self.__dict__, "_namespace": {}, "_began": time.monotonic() - self._began}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _began=time.monotonic() - state["_began"])

    @property
    def profile(self) -> str:
        """PROFILE as it was checked."""
        return str(self._checked.get("PROFILE", "smoke"))

    @property
    def smoke(self) -> bool:
        """Whether this run only shows that the notebook works: on a CPU, offline, in less than two minutes."""
        return self.profile == "smoke"

    @property
    def out(self) -> Path:
        """The folder of the results."""
        return Path(str(self._checked.get("OUT_DIR", self.name))).expanduser()

    def pick(self, **by_profile: T) -> T:
        """The value for this profile. Raises KeyError where none is given for it."""
        if self.profile not in by_profile:
            raise KeyError(f"no value for profile {self.profile!r}, only for {', '.join(by_profile)}")
        return by_profile[self.profile]

    def metrics(self, **results: object) -> None:
        """Writes OUT_DIR/metrics.json, whole or not at all. Raises ValueError for a NaN or an infinity, naming it."""
        here = self._machine()
        numbers = {
            "notebook": self.name,
            "profile": self.profile,
            "parameters": plain(self.parameters, "parameters"),
            "seconds": round(time.monotonic() - self._began, 1),
            "versions": here.versions,
            "hardware": here.hardware(),
        }
        if taken := numbers.keys() & results.keys():
            raise ValueError(f"{', '.join(sorted(taken))}: every metrics.json has it already. Remedy: another name.")
        numbers |= {name: plain(value, name) for name, value in results.items()}
        target = self.out / "metrics.json"
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        aside.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        aside.replace(target)
        print(f"All numbers of this run are in {target}.")

    @property
    def _checked(self) -> dict[str, object]:
        self._machine()
        return self.parameters

    def _machine(self) -> Surroundings:
        if self._here is None:
            raise RuntimeError("The parameters were not checked. Remedy: run the cell with lesson.check(...) first.")
        return self._here
