"""A notebook of three cells that runs in a second and fails, waits or measures as it is told."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat

PARAMETERS = """\
RANK = 8
RATE = 1e-4
NAME = "a"
LAYERS = ["q_proj"]
FAIL = False
WAIT = False
OUT_DIR = "tiny"
"""
BEGIN = """\
import json, pathlib, time
out = pathlib.Path(OUT_DIR)
out.mkdir(parents=True, exist_ok=True)
with (out / "begun").open("a") as file:
    file.write("begun\\n")
while WAIT and not (out.parent / "go").exists():
    time.sleep(0.1)
"""
MIDDLE = """\
if FAIL and not (out.parent / "mended").exists():
    raise ValueError("the rank does not fit\\nand more")
"""
END = """\
(out / "metrics.json").write_text(json.dumps({"notebook": "tiny", "loss": RATE * RANK, "deep": {"rank": RANK}}))
"""


def notebook() -> nbformat.NotebookNode:
    sources = (PARAMETERS, BEGIN, MIDDLE, END)
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{n:02d}") for n, source in enumerate(sources)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def write(path: Path) -> Path:
    path.write_text(json.dumps(notebook()), encoding="utf-8")
    return path
