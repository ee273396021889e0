"""Variables of finished cells, from one kernel to the next: what a run asks of the kernel, and what it is answered.

The work is done inside the kernel, by the modules of `snapshot/`, whose texts are sent there once: the session's
environment needs cloudpickle, not ipytune. Each question is a silent execution without history or output.

A kernel that cannot keep anything (another language, no cloudpickle, a full disk) is no reason to stop a run: it is
said once, and a resumed run then runs the finished cells again.
"""

from __future__ import annotations

import ast
import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

from ipytune.papermill.resume import RUN, Known

LARGEST = 1_000_000_000
"""Bytes of one variable: the bundled model of 135M parameters in float32 is 540 MB."""
ALTOGETHER = 2_000_000_000
"""Bytes of all: a home directory on a cluster has a quota, and a failed run leaves this behind."""
SECONDS = 120.0
"""For one save, on a slow file system; what is not through by then is left out."""

_PACKAGE = "_ipytune_state"
"""What `snapshot/` is called in the kernel; pickles name it."""


class Kernel(Protocol):
    """Runs code without output or history, and answers the text of one expression; None where that failed."""

    def ask(self, code: str, expression: str) -> str | None: ...


class StateUnavailable(Exception):
    """Nothing can be kept in this kernel; the message says why."""


@dataclass(frozen=True)
class Saved:
    """left: the variables that could not be kept, with the reason. seconds: what keeping the others took."""

    left: Mapping[str, str]
    secret_environ: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Record:
    """What an earlier kernel of this run left: after which code cell, and what of each variable."""

    cell: int
    known: Mapping[str, Known]
    secret_environ: tuple[str, ...] = field(default=())


def new_run() -> str:
    """The name of a run's record; a notebook's metadata holds it."""
    return uuid.uuid4().hex


class State:
    """The record of one run, kept in the file system of the kernel: ~/.local/state/ipytune/resume/RUN."""

    def __init__(self, kernel: Kernel, run: str) -> None:
        """In a fresh kernel, before any cell. Raises StateUnavailable."""
        if not RUN.fullmatch(run):
            raise ValueError("the name of a run is 32 hexadecimal digits")
        self._kernel = kernel
        self._ask("begin", run, LARGEST, ALTOGETHER, SECONDS, code=_installation())

    def save(self, cell: int) -> Saved:
        """After the code cell of this number. Raises StateUnavailable."""
        answer = self._ask("save", cell)
        return Saved(answer["left"], tuple(answer["secret_environ"]), answer["seconds"])

    def look(self) -> Record | None:
        """The record as it was left, if there is one. Raises StateUnavailable."""
        answer = self._ask("look")
        if answer is None:
            return None
        known = {
            name: Known(tuple(entry["changed"]), entry["left"], entry["handle"])
            for name, entry in answer["names"].items()
        }
        return Record(answer["cell"], known, tuple(answer["secret_environ"]))

    def restore(self, without: Collection[str], first: int) -> dict[str, str]:
        """Puts the variables back, but for those named, to go on with the code cell `first`.

        Returns those that could not be read, with the reason. Raises StateUnavailable.
        """
        return dict(self._ask("restore", sorted(without), first)["failed"])

    def before(self, cell: int) -> None:
        """Working directory and random numbers as they were before this code cell."""
        self._ask("before", cell)

    def drop(self) -> None:
        """The run has ended well: nothing is left behind."""
        self._ask("drop")

    def _ask(self, question: str, *arguments: Any, code: str = "") -> Any:
        given = ", ".join(map(repr, arguments))
        text = self._kernel.ask(code, f"__import__('sys').modules[{_PACKAGE!r}].{question}({given})")
        try:
            answer = json.loads(ast.literal_eval(text or ""))
        except (SyntaxError, ValueError):
            raise StateUnavailable("its kernel has no Python, or no cloudpickle (pip install cloudpickle)") from None
        if isinstance(answer, dict) and "error" in answer:
            raise StateUnavailable(answer["error"])
        return answer


def _installation() -> str:
    """Code that makes a package of `snapshot/` in the kernel. It leaves no name in the notebook."""
    folder = files("ipytune.papermill") / "snapshot"  # not by its own name: that would import it here
    texts = {file.name[:-3]: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".py")}
    program = f"{texts.pop('install')}\ninstall({_PACKAGE!r}, {texts!r})"
    return f"exec({program!r}, {{'__name__': {_PACKAGE!r}}})"
