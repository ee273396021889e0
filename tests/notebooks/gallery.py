"""The executed notebooks as pages that need neither kernel nor network, and an index with their results."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from tests.notebooks.expectations import Bounds, at
from tests.notebooks.judge import Outcome, summary

_WIDGET = "application/vnd.jupyter.widget-view+json"
_STYLE = """
body{font:15px/1.5 system-ui;margin:2rem auto;max-width:70rem;padding:0 1rem;color-scheme:light dark}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.4rem .8rem .4rem 0}
tr{border-bottom:1px solid #8884}.failed{color:#b3261e}.passed{color:#1b6e3c}
.number{text-align:right;white-space:nowrap}
@media(prefers-color-scheme:dark){.failed{color:#ff8a80}.passed{color:#7fd8a2}}
small{opacity:.75;display:block}
"""


def write_gallery(
    folder: Path,
    outcomes: Sequence[Outcome],
    executed: Mapping[str, Path],
    bounds: Mapping[str, Mapping[str, Bounds]],
) -> Path:
    """index.html and a page for each executed notebook. bounds: of the numbers to show, by notebook."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {}
    for name, file in executed.items():
        if file.is_file():
            page = folder / f"{name}.html"
            page.write_text(rendered(nbformat.read(file, as_version=4), name), encoding="utf-8")
            pages[name] = page.name
    index = folder / "index.html"
    index.write_text(index_of(outcomes, pages, bounds), encoding="utf-8")
    return index


def rendered(notebook: NotebookNode, name: str) -> str:
    """One page. Widgets show their static pictures: the live ones would load their code from elsewhere."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(_WIDGET, None)
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", exclude_anchor_links=True)
    page, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": name}})
    return str(page)


def index_of(outcomes: Sequence[Outcome], pages: Mapping[str, str], bounds: Mapping[str, Mapping[str, Bounds]]) -> str:
    rows = "\n".join(_row(outcome, pages, bounds.get(outcome.notebook, {})) for outcome in outcomes)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Notebooks: {summary(outcomes)}</title><style>{_STYLE}</style><h1>Notebooks</h1>"
        f"<p>{summary(outcomes)}</p><table><thead><tr><th>Notebook<th>State<th class=number>Time"
        f"<th class=number>Memory<th>Numbers</tr></thead><tbody>\n{rows}\n</tbody></table></html>\n"
    )


def _row(outcome: Outcome, pages: Mapping[str, str], bounds: Mapping[str, Bounds]) -> str:
    name = html.escape(outcome.notebook)
    link = f'<a href="{pages[outcome.notebook]}">{name}</a>' if outcome.notebook in pages else name
    said = [*outcome.findings, *outcome.notes, *(["failed first, passed when tried again"] if outcome.unsteady else [])]
    below = "".join(f"<small>{html.escape(text)}</small>" for text in said)
    numbers = "".join(f"<small>{html.escape(line)}</small>" for line in _numbers(outcome, bounds))
    return (
        f"<tr><td>{link}<small>{html.escape(outcome.profile)}</small><td><span class={outcome.state}>{outcome.state}"
        f"</span>{below}<td class=number>{_of(outcome.seconds, outcome.budget_seconds, 's')}"
        f"<td class=number>{_of(outcome.memory_gb, outcome.budget_memory_gb, 'GB')}<td>{numbers}</tr>"
    )


def _of(used: float | None, budget: float | None, unit: str) -> str:
    return "" if used is None else f"{used:g} {unit}<small>of {budget:g}</small>"


def _numbers(outcome: Outcome, bounds: Mapping[str, Bounds]) -> list[str]:
    """Those that are judged."""
    lines = []
    for path in bounds:
        try:
            value = at(outcome.metrics, path)
        except KeyError:
            continue
        lines.append(f"{path}: {value:.4g}" if isinstance(value, float) else f"{path}: {value}")
    return lines
