"""What is wrong with a notebook's parameters, found in one pass and said in one message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from ipytune.lesson.kinds import Kind, said

# Fields of a session's request: `papermill --engine hub -p profile gpu-1` passes them through the same options, and
# papermill injects them into the notebook, to which they mean nothing.
OF_A_REQUEST = frozenset(
    ("profile", "environment", "target", "runtime", "account", "partition", "reservation", "notebook", "lease")
)
# Packages that come with an extra of ipytune.
_EXTRAS = {"fastapi": "serve", "uvicorn": "serve", "pyarrow": "data", "kubernetes": "kubernetes"}


class ParameterError(ValueError):
    """Parameters or a machine that a notebook cannot run with; `findings` has one sentence or two each.

    Jupyter, nbclient and papermill show the message alone: where it was raised is of no use to who reads it.
    """

    def __init__(self, notebook: str, findings: Iterable[str]) -> None:
        self.findings = tuple(findings)
        head = f"{notebook} cannot run like this:"
        super().__init__("\n".join([head, *(f"- {finding}" for finding in self.findings)]))

    def _render_traceback_(self) -> list[str]:
        return f"{type(self).__name__}: {self}".splitlines()


def findings_of_values(given: Mapping[str, object], kinds: Mapping[str, Kind]) -> list[str]:
    """Of each parameter: a name that nothing reads, one that is not set, a value that is not allowed."""
    found = [_unknown(name, kinds) for name in given if name not in kinds and name not in OF_A_REQUEST]
    for name, kind in kinds.items():
        if name not in given:
            found.append(f"{name}: not set. Remedy: give it a value in the cell of the parameters.")
        elif (complaint := kind.complaint(given[name])) is not None:
            found.append(f"{name} = {said(given[name])}: {complaint}")
    return found


def _unknown(name: str, kinds: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.upper(), kinds, n=1, cutoff=0.6)
    remedy = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(kinds)}."
    return f"{name}: no parameter has this name. {remedy}"


def finding_of_packages(missing: Iterable[str]) -> list[str]:
    """One sentence for all that is not installed, with the command that installs it."""
    names = sorted(missing)
    if not names:
        return []
    wanted = sorted({f"'ipytune[{_EXTRAS[name]}]'" if name in _EXTRAS else name for name in names})
    return [f"Not installed: {', '.join(names)}. Remedy: pip install {' '.join(wanted)}, then restart the kernel."]


def finding_of_gpus(profile: str, wanted: int, there: int, smoke: bool) -> list[str]:
    """A profile that needs more GPUs than are visible. smoke: whether the notebook has such a profile."""
    if there >= wanted:
        return []
    visible = f"{there} visible" if there else "none visible"
    without = 'PROFILE = "smoke", which needs none, or ' if smoke else ""
    session = f"a session with {wanted} ({'--engine hub -p profile gpu-' + str(wanted)})"
    return [
        f"PROFILE = {profile!r} needs {wanted} GPU{'s' if wanted > 1 else ''}: {visible}. Remedy: {without}{session}."
    ]


def finding_of_disk(where: str, wanted_gb: float, free_gb: float) -> list[str]:
    """Less room than the results take."""
    if free_gb >= wanted_gb:
        return []
    return [
        f"{free_gb:.1f} GB are free for the results at {where}, {wanted_gb:g} are needed. "
        "Remedy: make room, or set OUT_DIR to another disk."
    ]
