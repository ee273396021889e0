"""The values that a parameter may have: each kind judges one value and says what is allowed, or what to do.

A kind never changes a value: what the cell of the parameters says is what the notebook computes with.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ipytune.lesson.models import missing_model

_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Kind:
    """`allowed`: in words; `complaint`: None for a value that is allowed, else a sentence."""

    allowed: str
    complaint: Callable[[object], str | None]


def said(value: object) -> str:
    """A value as it would be typed, shortened."""
    typed = repr(value)
    return typed if len(typed) <= _SHOWN else typed[: _SHOWN - 1] + "…"


def _kind(allowed: str, fits: Callable[[object], bool]) -> Kind:
    return Kind(allowed, lambda value: None if fits(value) else f"allowed is {allowed}.")


def choice(*values: object) -> Kind:
    """One of these, of the same type."""
    allowed = ", ".join(said(value) for value in values)
    return _kind(f"one of {allowed}", lambda value: any(type(value) is type(one) and value == one for one in values))


def flag() -> Kind:
    return _kind("True or False", lambda value: isinstance(value, bool))


def integer(least: int | None = None, most: int | None = None) -> Kind:
    """A whole number between both, themselves included; True is none."""
    return _kind(f"a whole number{_between(least, most)}", lambda value: _whole(value) and _within(value, least, most))


def number(least: float | None = None, most: float | None = None) -> Kind:
    """A finite number between both, themselves included."""

    def fits(value: object) -> bool:
        return (_whole(value) or isinstance(value, float) and math.isfinite(value)) and _within(value, least, most)

    return _kind(f"a number{_between(least, most)}", fits)


def optional(kind: Kind) -> Kind:
    """None too."""

    def complaint(value: object) -> str | None:
        found = None if value is None else kind.complaint(value)
        return found.replace("allowed is ", "allowed is None or ", 1) if found else None

    return Kind(f"None or {kind.allowed}", complaint)


def text(*, empty: bool = False) -> Kind:
    return _kind(
        "a text" if empty else "a text that is not empty",
        lambda value: isinstance(value, str) and (empty or bool(value.strip())),
    )


def items(kind: Kind, least: int = 1, most: int | None = None) -> Kind:
    """A list of so many values of one kind."""
    count = f"{least} or more" if most is None else f"{least} to {most}"
    allowed = f"a list of {count}, each {kind.allowed}"

    def complaint(value: object) -> str | None:
        if not isinstance(value, (list, tuple)) or not _within(len(value), least, most):
            return f"allowed is {allowed}. A list is passed with -y or -f: papermill's -p makes a text of it."
        wrong = [(one, found) for one in value if (found := kind.complaint(one)) is not None]
        return f"in it {said(wrong[0][0])}: {wrong[0][1]}" if wrong else None

    return Kind(allowed, complaint)


def folder(*, exists: bool = False) -> Kind:
    """A folder that can be made and written; with exists, one that is there to be read."""

    def complaint(value: object) -> str | None:
        if not isinstance(value, str) or not value.strip():
            return "allowed is the path of a folder, as text."
        path = Path(value).expanduser()
        if exists:
            return None if path.is_dir() else "there is no such folder. Remedy: check the path; it is read from here."
        there = nearest(path)
        if not there.is_dir():
            return f"{there} is a file. Remedy: name a folder."
        return (
            None if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written. Remedy: name another folder."
        )

    return Kind("the path of a folder", complaint)


def file(*endings: str) -> Kind:
    """A file that is there and can be read; with endings (".jsonl"), of such a name."""
    named = f" ({', '.join(endings)})" if endings else ""

    def complaint(value: object) -> str | None:
        if not isinstance(value, str) or not value.strip() or endings and not value.endswith(endings):
            return f"allowed is the path of a file{named}, as text."
        path = Path(value).expanduser()
        if not path.is_file():
            return "there is no such file. Remedy: check the path; a relative one begins at the notebook's folder."
        return None if os.access(path, os.R_OK) else "it may not be read. Remedy: chmod u+r, or a copy."

    return Kind(f"the path of a file{named}", complaint)


def model() -> Kind:
    """A bundled model's name, a model directory, or an id on a model hub that this machine has or can reach."""

    def complaint(value: object) -> str | None:
        if not isinstance(value, str) or not value.strip():
            return "allowed is the name, the folder or the hub's id of a model, as text."
        return missing_model(value)

    return Kind("a model", complaint)


def nearest(path: Path) -> Path:
    """The path itself, or the first above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _within(value: object, least: float | None, most: float | None) -> bool:
    assert isinstance(value, (int, float))
    return (least is None or value >= least) and (most is None or value <= most)


def _between(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f", {least} or more"
    return "" if most is None else f", {most} or less"
