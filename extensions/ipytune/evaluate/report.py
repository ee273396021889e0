"""An evaluation as HTML: a page that needs nothing else, and the part of it that a notebook shows without a browser.

Whatever came from data, a model or a server is escaped, and the page's own policy allows no request to anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape as _escape

from ipytune.endpoints.untrusted import visible
from ipytune.evaluate import verdicts
from ipytune.evaluate.result import Cell, Evaluation, Row
from ipytune.evaluate.scorers.score import Score, clipped

_LONGEST = 4000  # characters of an answer in the page; all of it is in answers.jsonl
_IN_NOTEBOOK = 10

STYLE = """
:root { color-scheme: light dark; --line: #d0d0d0; --dim: #5f5f5f; --bad: #b3261e; --good: #1b6e2e; --soft: #f5f5f5; }
@media (prefers-color-scheme: dark) {
  :root { --line: #4a4a4a; --dim: #b5b5b5; --bad: #ff8a80; --good: #7bd88f; --soft: #262626; }
}
body { max-width: 1200px; margin: 24px auto; padding: 0 16px; font: 14px/1.5 system-ui, sans-serif; }
h1 { font-size: 20px; } .dim { color: var(--dim); } .bad { color: var(--bad); } .good { color: var(--good); }
table { width: 100%; border-collapse: collapse; } th, td { padding: 6px 12px 6px 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid var(--line); } .rows { table-layout: fixed; margin-top: 12px; }
pre { margin: 0; font: 12px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 20px; } input { flex: 1 1 220px; }
button, input { padding: 5px 10px; border: 1px solid var(--line); border-radius: 5px; background: var(--soft);
  color: inherit; font: inherit; } button[aria-pressed=true] { border-color: currentColor; font-weight: 600; }
@media (max-width: 700px) { .rows, .rows tbody, .rows tr, .rows td { display: block; } .rows thead { display: none; } }
"""
SCRIPT = """
const rows = [...document.querySelectorAll(".rows tbody tr")];
const buttons = [...document.querySelectorAll("nav button")];
const search = document.querySelector("nav input");
const count = document.querySelector("nav output");
let only = "all";
function show() {
  const words = search.value.toLowerCase();
  let shown = 0;
  for (const row of rows) {
    const fits = (only === "all" || row.dataset.kind.split(" ").includes(only))
      && (!words || row.textContent.toLowerCase().includes(words));
    row.hidden = !fits;
    shown += fits;
  }
  count.textContent = shown + " of " + rows.length + " shown";
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.only === only));
}
for (const button of buttons) button.addEventListener("click", () => { only = button.dataset.only; show(); });
search.addEventListener("input", show);
show();
"""


def escape(text: str) -> str:
    """For HTML; what would turn the direction of the text or hide in it is shown by its name."""
    return _escape(visible(text))


def page(evaluation: Evaluation, limit: int = 500) -> str:
    """The whole page, with at most `limit` questions, the worst first."""
    rows = "".join(_row(evaluation, row) for row in evaluation.rows(limit=limit))
    heads = "".join(f"<th>{escape(name)}</th>" for name in evaluation.endpoints)
    n = len(evaluation.questions)
    cut = (
        f'<p class="dim">The {limit} worst of {n} questions; to_csv() and to_json() have all.</p>' if n > limit else ""
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">"
        f"<title>Evaluation: {escape(', '.join(evaluation.endpoints))}</title><style>{STYLE}</style></head><body>"
        f"<h1>Evaluation</h1>{_facts(evaluation)}{results(evaluation)}{_said(evaluation.verdicts)}"
        '<nav aria-label="Filter"><button type="button" data-only="all">All</button>'
        '<button type="button" data-only="failed">Failures</button>'
        '<button type="button" data-only="differs">Differences</button>'
        '<input type="search" aria-label="Search" placeholder="Search"><output class="dim"></output></nav>'
        f'{cut}<table class="rows"><thead><tr><th>Question</th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def fragment(evaluation: Evaluation) -> str:
    """Results, verdicts and the first failures, with inline styles, for a notebook's output."""
    rows = list(evaluation.rows("failures", _IN_NOTEBOOK))
    return (
        '<div style="font:13px/1.45 system-ui,sans-serif">'
        f"{results(evaluation)}{_said(evaluation.verdicts)}{failures(evaluation, rows)}</div>"
    )


def results(evaluation: Evaluation) -> str:
    """The table of means and intervals; models are rows, scorers are columns."""
    found = {(item.endpoint, item.scorer): item for item in evaluation.summaries}
    heads = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in evaluation.scorers)
    body = ""
    for column in evaluation.columns:
        cells = "".join(
            f'<td style="text-align:left">{escape(verdicts.result(item)) if item is not None else "–"}</td>'
            for item in (found.get((column.endpoint, scorer)) for scorer in evaluation.scorers)
        )
        body += (
            f'<tr style="background:none"><th style="text-align:left" scope="row">{escape(column.endpoint)}</th>{cells}'
            '<td style="text-align:left;opacity:.7">'
            f"{escape(cost(column.output_tokens, column.tokens_estimated))}</td></tr>"
        )
    return (
        f'<table><thead><tr style="background:none"><th></th>{heads}<th style="text-align:left">Written now</th></tr>'
        f"</thead><tbody>{body}</tbody></table>"
    )


def cost(tokens: int, estimated: bool) -> str:
    return f"{'≈ ' if estimated else ''}{tokens:,} tokens"


def failures(evaluation: Evaluation, rows: Iterable[Row]) -> str:
    """Questions with their answers beside each other, short."""
    body = "".join(
        '<tr style="background:none"><td style="text-align:left;vertical-align:top">'
        f"{escape(clipped(row.question.text, 160))}"
        f"</td>{''.join(_short(row, name) for name in evaluation.endpoints)}</tr>"
        for row in rows
    )
    if not body:
        return ""
    heads = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in evaluation.endpoints)
    return (
        '<details open><summary>Failures first</summary><table style="width:100%;table-layout:fixed"><thead>'
        f'<tr style="background:none"><th style="text-align:left">Question</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></details>"
    )


def _short(row: Row, name: str) -> str:
    cells = [cell for cell in row.cells if cell.endpoint == name]
    words = "<br>".join(
        f"{'✗' if cell.failed else '✓'} {escape(clipped(str(cell.problem or cell.text), 160))}" for cell in cells
    )
    return f'<td style="text-align:left;vertical-align:top;overflow-wrap:anywhere">{words}</td>'


def _facts(evaluation: Evaluation) -> str:
    info = evaluation.info
    options = ", ".join(f"{name} {value}" for name, value in info["options"].items())
    models = "; ".join(f"{item['name']}: {item['model']} at {item['base_url']}" for item in info["endpoints"])
    repeats = f", {info['repeats']} answers each" if info["repeats"] > 1 else ""
    return (
        f'<p class="dim">{escape(str(info["data"]))}: {info["questions"]} questions{repeats}. {escape(options)}.<br>'
        f"{escape(models)}</p>"
    )


def _said(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _row(evaluation: Evaluation, row: Row) -> str:
    kinds = ["failed"] * row.failed + ["differs"] * evaluation.sheet.differs(row.number)
    expected = f'<p class="dim">Expected</p><pre>{_cut(row.question.expected)}</pre>' if row.question.expected else ""
    question = f'<p class="dim">Line {row.question.line}</p><pre>{_cut(row.question.text)}</pre>{expected}'
    answers = "".join(
        f"<td>{''.join(_answer(cell) for cell in row.cells if cell.endpoint == name)}</td>"
        for name in evaluation.endpoints
    )
    return f'<tr data-kind="{" ".join(kinds)}"><td>{question}</td>{answers}</tr>'


def _answer(cell: Cell) -> str:
    if cell.problem is not None:
        return f'<p class="bad">No answer. {escape(str(cell.problem))}</p>'
    marks = " · ".join(_mark(name, score) for name, score in cell.scores.items())
    cut = " · cut at max_tokens" if cell.finish_reason == "length" else ""
    return f'<p class="dim">{marks}{cut}</p><pre>{_cut(cell.text) or "(empty)"}</pre>'


def _mark(name: str, score: Score | str) -> str:
    if isinstance(score, str):
        return f'<span class="bad">{escape(name)}: not scored, {escape(score)}</span>'
    kind = {True: "good", False: "bad", None: "dim"}[score.passed]
    sign = {True: "✓", False: "✗", None: f"{score.value:.2f}"}[score.passed]
    detail = f" ({escape(score.detail)})" if score.detail else ""
    return f'<span class="{kind}">{escape(name)} {sign}</span>{detail}'


def _cut(text: str) -> str:
    more = len(text) - _LONGEST
    return escape(text) if more <= 0 else f"{escape(text[:_LONGEST])} … {more:,} characters more"
