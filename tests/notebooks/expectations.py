"""What stands beside a notebook in NN-name.expect.yaml: its budgets, and the bounds of its numbers in smoke.

    seconds: 120          # on two quiet cores
    memory_gb: 3          # of all its processes together, at their peak
    cores: 2              # the default; notebooks with 1 may run side by side on two
    metrics:              # dotted path into metrics.json
      training.loss: {max: 1.0}
      exact_match_n: {equals: 4}

More than a budget is noted; more than twice of it is a failure: a busy machine is no fault of the notebook.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

TOO_MUCH = 2.0  # times a budget


class Bounds(BaseModel):
    """Of one number (min, max) or one value of any kind (equals)."""

    model_config = ConfigDict(extra="forbid")
    min: float | None = None
    max: float | None = None
    equals: Any = None

    @model_validator(mode="after")
    def bounds_something(self) -> Bounds:
        if not self.model_fields_set:
            raise ValueError("bounds nothing: give min, max or equals")
        return self

    def finding(self, value: object) -> str | None:
        """None when it fits."""
        if "equals" in self.model_fields_set:
            return None if value == self.equals and type(value) is type(self.equals) else f"is not {self.equals!r}"
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return "is no number"
        if self.min is not None and value < self.min:
            return f"is less than {self.min:g}"
        return f"is more than {self.max:g}" if self.max is not None and value > self.max else None


class Expectations(BaseModel):
    model_config = ConfigDict(extra="forbid")
    seconds: float = Field(gt=0)
    memory_gb: float = Field(gt=0)
    cores: int = Field(2, ge=1)
    metrics: dict[str, Bounds] = Field(min_length=1)


def expectations_of(notebook: Path) -> Expectations:
    """Raises ValueError, which names the file."""
    file = notebook.with_suffix(".expect.yaml")
    if not file.is_file():
        raise ValueError(f"{file.name} is missing: budgets and bounds of the numbers stand in it")
    try:
        return Expectations.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise ValueError(f"{file.name}: {error}") from error


def findings_of_metrics(metrics: Mapping[str, Any], bounds: Mapping[str, Bounds]) -> list[str]:
    """Each number that is missing or out of its bounds."""
    found = []
    for path, bound in bounds.items():
        try:
            value = at(metrics, path)
        except KeyError:
            found.append(f"metrics.json has no {path}")
            continue
        if (finding := bound.finding(value)) is not None:
            found.append(f"{path} = {value!r} {finding}")
    return found


def at(metrics: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, whose parts may be places in lists. Raises KeyError."""
    value: Any = metrics
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise KeyError(path)
    return value


def over_budget(what: str, used: float, budget: float, unit: str) -> tuple[list[str], list[str]]:
    """Findings and notes, one of them or none."""
    said = [f"{what}: {used:.1f} {unit}, the budget is {budget:g}"]
    if used > TOO_MUCH * budget:
        return said, []
    return ([], said) if used > budget else ([], [])
