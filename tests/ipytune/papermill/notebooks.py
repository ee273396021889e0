"""Small notebooks for the tests of running them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}


def write(path: Path, *sources: str, tags: dict[int, list[str]] | None = None) -> Path:
    """Code cells; the first is tagged `parameters`."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for number, given in {0: ["parameters"], **(tags or {})}.items():
        cells[number].metadata["tags"] = given
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
    return path


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def statuses(path: Path) -> list[str]:
    return [cell.metadata.papermill["status"] for cell in read(path).cells if cell.cell_type == "code"]


def texts(path: Path) -> list[str]:
    """What each code cell printed."""
    return [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in read(path).cells
        if cell.cell_type == "code"
    ]
