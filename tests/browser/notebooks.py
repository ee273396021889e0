"""The notebooks as a reader works through them: in JupyterLab in Chromium, cell after cell with Shift+Enter.

`python -m tests.browser.notebooks DIR [--only 01 --only 02]` runs each in smoke, and leaves in DIR a picture of every
panel, the saved notebook and `by-hand.json`: cells, panels, seconds, and the error where there was one. Needs chromium;
about twenty minutes on two cores. What the runner of the notebooks checks (metrics, budgets) is not checked again.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import nbformat
import typer
from playwright.sync_api import Page

from tests.browser.lab import Lab, browser_page, lab_server, open_notebook, run_cell, until

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CELL_SECONDS = 600.0


def in_smoke(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """With PROFILE = "smoke" typed into its parameters cell, as the notebook asks a reader to do."""
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source, changed = re.subn(r"^PROFILE = .*$", 'PROFILE = "smoke"', cell.source, flags=re.MULTILINE)
    if changed != 1:
        raise ValueError("The parameters cell has no line that sets PROFILE.")
    return notebook


def work_through(page: Page, lab: Lab, notebook: Path, out: Path) -> dict[str, Any]:
    """Runs every code cell by the keyboard and saves; what was seen. Raises AssertionError for a cell that failed."""
    made = in_smoke(nbformat.read(notebook, as_version=4))
    nbformat.write(made, lab.folder / notebook.name)
    cells = sum(cell.cell_type == "code" for cell in made.cells)
    started = time.monotonic()
    open_notebook(page, lab, notebook.name)
    for number in range(cells):
        run_cell(page, number, CELL_SECONDS)
    broken = page.get_by_text("Error displaying widget").count()
    if broken:
        raise AssertionError(f"{broken} widgets are not shown")
    panels = page.locator("section.ipt-panel")
    labels = [panel.get_attribute("aria-label") for panel in panels.all()]
    for number, panel in enumerate(panels.all()):
        panel.scroll_into_view_if_needed()
        panel.screenshot(path=out / f"{notebook.stem}-{number}.png")
    saved = lab.folder / notebook.name
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    until(lambda: _run_cells(saved) == cells, f"{notebook.name} saved with all of its cells run")
    shutil.copy(saved, out / notebook.name)
    return {"cells": cells, "panels": labels, "seconds": round(time.monotonic() - started, 1)}


def _run_cells(saved: Path) -> int:
    cells = json.loads(saved.read_text(encoding="utf-8"))["cells"]
    return sum(cell["cell_type"] == "code" and bool(cell["execution_count"]) for cell in cells)


def main(
    out: Annotated[Path, typer.Argument(help="Folder for pictures and saved notebooks.")],
    only: Annotated[list[str] | None, typer.Option(help="Numbers of notebooks, such as 03. Repeat it.")] = None,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for notebook in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        if only and notebook.name[:2] not in only:
            continue
        with (
            tempfile.TemporaryDirectory(prefix="by-hand-", ignore_cleanup_errors=True) as folder,
            lab_server(Path(folder)) as lab,
            browser_page(width=1060) as page,
        ):
            try:
                found[notebook.stem] = work_through(page, lab, notebook, out)
            except AssertionError as error:
                page.screenshot(path=out / f"{notebook.stem}-failed.png")
                found[notebook.stem] = {"error": str(error)}
        print(notebook.stem, found[notebook.stem], flush=True)
        (out / "by-hand.json").write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(any("error" in result for result in found.values()))


if __name__ == "__main__":
    typer.run(main)
