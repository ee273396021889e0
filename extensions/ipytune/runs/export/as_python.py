"""A configuration as the Python that makes it. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

_LEFT_OUT = frozenset({"versions"})  # said in comments, and filled in anew by whoever trains


def as_python(model: BaseModel, indent: int = 0) -> str:
    """`RunConfig(...)`, one setting a line: all but those that are None. A relative path starts at `HERE`."""
    space = " " * (indent + 4)
    settings = [
        f"{space}{name}={_literal(getattr(model, name), indent + 4)},"
        for name in type(model).model_fields
        if name not in _LEFT_OUT and getattr(model, name) is not None
    ]
    return "\n".join([f"{type(model).__name__}(", *settings, " " * indent + ")"])


def _literal(value: Any, indent: int) -> str:
    if isinstance(value, BaseModel):
        return as_python(value, indent)
    if isinstance(value, Path):
        return f"Path({str(value)!r})" if value.is_absolute() else f"HERE / {value.as_posix()!r}"
    return repr(value)
