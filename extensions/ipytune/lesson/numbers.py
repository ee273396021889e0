"""Results as plain JSON: what cannot be compared later (NaN, infinity, an object's repr) is refused by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

JSON = Any  # None, bool, int, float, str, lists and dicts of them


def plain(value: object, name: str) -> JSON:
    """A value without types of other libraries. Raises ValueError for a number that is none, TypeError for an object.

    >>> plain({"loss": 0.5, "steps": (1, 2)}, "run")
    {'loss': 0.5, 'steps': [1, 2]}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(
                f"{name} is {value}: no result. Remedy: look at what computed it; a diverged run has none."
            )
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner, f"{name}[{place}]") for place, inner in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if callable(many := getattr(value, "tolist", None)):
        return plain(many(), name)  # a number or an array of numpy, a tensor
    raise TypeError(f"{name} is of type {type(value).__name__}: metrics are numbers, texts, lists and dicts of them.")
