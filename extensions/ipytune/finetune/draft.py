"""Settings while they are being edited: any of them may be wrong or missing, and each then says so.

Immutable; a change gives a new draft. Importing this module does not import torch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from ipytune.lora.config import RunConfig

REQUIRED = "train_file"


@dataclass(frozen=True)
class Draft:
    """base: settings as `RunConfig.model_dump` gives them, all valid or absent. edited: what was typed over them, by
    the setting's path (`lora.rank`); may be text for a number. last: the setting that was edited last."""

    base: Mapping[str, Any] = field(default_factory=dict)
    edited: Mapping[str, Any] = field(default_factory=dict)
    last: str = ""

    @classmethod
    def of(cls, config: RunConfig) -> Draft:
        return cls(config.model_dump(mode="json", exclude={"versions", "train_sha256", "eval_sha256"}))

    def changed(self, name: str, value: Any) -> Draft:
        """With another value for a setting; empty text means that nothing is given. Raises KeyError for a name that
        is no setting."""
        if name not in NAMES:
            raise KeyError(f"{name!r} is no setting. There are: {', '.join(NAMES)}.")
        if isinstance(value, str) and not value.strip():
            value = None
        return Draft(self.base, {**self.edited, name: value}, name)

    def value(self, name: str) -> Any:
        """What is set or typed for a setting, valid or not; its default where nothing is."""
        if name in self.edited:
            return self.edited[name]
        section, _, leaf = name.rpartition(".")
        values = self.base.get(section, {}) if section else self.base
        return values.get(leaf, NAMES[name])

    @property
    def config(self) -> RunConfig:
        """The configuration; raises pydantic's ValidationError while something is wrong or missing."""
        values = copy.deepcopy(dict(self.base))
        for name, value in self.edited.items():
            section, _, leaf = name.rpartition(".")
            place = values.setdefault(section, {}) if section else values
            if value is None and (NAMES[name] is not None or name == REQUIRED):  # emptied: as if it were not given
                place.pop(leaf, None)
            else:
                place[leaf] = value
        return RunConfig.model_validate(values)

    @cached_property
    def errors(self) -> dict[str, str]:
        """What is wrong, by the setting at fault; what several settings make wrong together, at the last edited one."""
        try:
            self.config  # noqa: B018  (validates)
        except ValidationError as error:
            found: dict[str, str] = {}
            for finding in error.errors():
                name = _setting(finding["loc"]) or self.last or REQUIRED
                words = finding["msg"].removeprefix("Value error, ")
                found.setdefault(name, "Name a file with conversations" if finding["type"] == "missing" else words)
            return found
        return {}


def _setting(location: tuple[int | str, ...]) -> str:
    """The setting that a finding of pydantic is about; empty for none in particular."""
    for length in (2, 1):
        name = ".".join(str(part) for part in location[:length])
        if name in NAMES:
            return name
    return ""


def _names() -> dict[str, Any]:
    """Every setting that can be edited, with its default: sections (data, lora) by their fields."""
    found: dict[str, Any] = {}
    for name, info in RunConfig.model_fields.items():
        inner = getattr(info.annotation, "model_fields", None)
        if inner is None:
            found[name] = None if info.is_required() else info.get_default(call_default_factory=True)
        else:
            found.update(
                {f"{name}.{leaf}": part.get_default(call_default_factory=True) for leaf, part in inner.items()}
            )
    for kept in ("versions", "train_sha256", "eval_sha256"):
        del found[kept]
    return found


NAMES: Mapping[str, Any] = _names()
