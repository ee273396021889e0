"""What is not run: data with a reason and an end, in notebooks/skip.yaml. A skip that has expired is a failure, so that
nothing stays switched off because nobody remembers it."""

from __future__ import annotations

import datetime
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError


class Skip(BaseModel):
    model_config = ConfigDict(extra="forbid")
    notebook: str  # its name without ending
    profile: str
    reason: str = Field(min_length=10)
    expires: datetime.date

    def expired(self, today: datetime.date) -> bool:
        return today > self.expires


def read_skips(file: Path, names: list[str]) -> list[Skip]:
    """Raises ValueError for a file that cannot be read, and for a skip of a notebook that does not exist."""
    if not file.is_file():
        return []
    try:
        skips = TypeAdapter(list[Skip]).validate_python(yaml.safe_load(file.read_text(encoding="utf-8")) or [])
    except (yaml.YAMLError, ValidationError) as error:
        raise ValueError(f"{file.name}: {error}") from error
    unknown = [skip.notebook for skip in skips if skip.notebook not in names]
    if unknown:
        raise ValueError(f"{file.name} skips what does not exist: {', '.join(unknown)}. Remedy: remove the entry.")
    return skips


def skip_of(name: str, profile: str, skips: list[Skip]) -> Skip | None:
    return next((skip for skip in skips if skip.notebook == name and skip.profile == profile), None)
