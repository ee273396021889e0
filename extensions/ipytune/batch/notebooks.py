"""How far a notebook has come, from its output as papermill saves it. Pure but for one reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Advance:
    """cells: code cells. done: of them, those that ended well. error: the first exception as one line."""

    done: int
    cells: int
    error: str | None = None


def advance(notebook: Mapping[str, Any]) -> Advance:
    code = [cell for cell in notebook.get("cells", []) if cell.get("cell_type") == "code"]
    told = [cell.get("metadata", {}).get("papermill") or {} for cell in code]
    done = sum(one.get("status") == "completed" and not one.get("exception") for one in told)
    errors = (_error(cell, number) for number, cell in enumerate(code, 1))
    return Advance(done, len(code), next((error for error in errors if error), None))


def read(path: Path) -> Advance | None:
    """None when there is no output yet, or it cannot be read."""
    try:
        return advance(json.loads(path.read_bytes()))
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _error(cell: Mapping[str, Any], number: int) -> str | None:
    for output in cell.get("outputs", []):
        if output.get("output_type") == "error":
            said = _heading(str(output.get("evalue", "")))
            return one_line(f"{output.get('ename', 'error')}: {said} (code cell {number})")
    return None


def _heading(said: str) -> str:
    """The first line; and what follows, where that only announces it.

    >>> _heading("out of memory\\ntried 2 GiB"), _heading("It cannot run like this:\\n- RANK = 0: at least 1")
    ('out of memory', 'It cannot run like this: - RANK = 0: at least 1')
    """
    lines = said.strip().splitlines() or [""]
    return " ".join(lines) if lines[0].rstrip().endswith(":") else lines[0]


def one_line(text: str, most: int = 300) -> str:
    """Without what would move a terminal's cursor; cut when long."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= most else plain[: most - 1] + "…"
