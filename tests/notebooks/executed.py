"""Whether an executed notebook really ran: a cell that was passed over is as bad as one that failed."""

from __future__ import annotations

from nbformat import NotebookNode

_WIDGET = "application/vnd.jupyter.widget-view+json"


def findings_of_execution(notebook: NotebookNode) -> list[str]:
    """Code cells that did not run, ran out of order, show an error, or a widget that only a kernel can draw."""
    found: list[str] = []
    last = 0
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        name = cell.get("id", f"cell {place}")
        count = cell.execution_count
        if count is None:
            found.append(f"{name} did not run")
        elif count <= last:
            found.append(f"{name} ran out of order: [{count}] after [{last}]")
        last = max(last, count or 0)
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"{name}: {output.ename}: {_first_lines(output.evalue)}")
            elif _WIDGET in (data := output.get("data", {})) and not data.get("text/html"):
                found.append(f"{name} shows a widget without a static picture of it")
    if not last and not found:
        found.append("no cell ran")
    return found


def _first_lines(text: str, most: int = 400) -> str:
    return text if len(text) <= most else text[:most] + "…"
