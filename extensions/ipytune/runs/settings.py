"""A configuration as one flat list of names and values: to compare runs, and for trackers, which know no nesting."""

from __future__ import annotations

from typing import Any

from ipytune.lora.config import RunConfig


def flattened(config: RunConfig) -> dict[str, Any]:
    """Every setting by its path, as YAML would write it: {"lora.rank": 16, "versions.torch": "2.13.0", ...}."""
    return _flat(config.model_dump(mode="json"))


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
