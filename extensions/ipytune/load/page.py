"""The report as one HTML file: curves, table, what one must know, what was asked. Self-contained, light and dark."""

from __future__ import annotations

from html import escape

from ipytune.load.curves import curves
from ipytune.load.report import LoadReport, table

_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --dim: #59636e; --line: #d1d9e0; --back: #fff; --soft: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --dim: #9198a1; --line: #3d444d; --back: #0d1117; --soft: #151b23; }
}
body { max-width: 1000px; margin: 32px auto; padding: 0 20px; background: var(--back); color: var(--text);
  font: 14px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 22px; } h2 { margin: 28px 0 8px; font-size: 16px; }
p { margin: 6px 0; } .dim { color: var(--dim); }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); gap: 12px 24px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--dim); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
.facts td, .facts th { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.warn { margin: 12px 0; padding: 8px 12px; border-left: 4px solid #d55e00; background: var(--soft); }
li { overflow-wrap: anywhere; }
"""


def page(report: LoadReport) -> str:
    """The whole document."""
    title = f"Load on {report.endpoint.name}"
    client = report.client
    warning = (
        '<div class="warn"><b>Limited by the client.</b> Some of these numbers may be those of the measuring client '
        "rather than of the server: see the notes.</div>"
        if report.client_limited
        else ""
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes())
    # Defaults, too: how long prompts and answers were, and that they were pinned, is part of every result.
    plan = report.plan.model_dump(mode="json", exclude_none=True)
    asked = [(name.replace("_", " "), str(value)) for name, value in plan.items() if value not in ([], {})]
    where = [
        ("host", client.host + (" (the server's own)" if client.same_machine else "")),
        ("job", client.job or "–"),
        ("processor", f"{client.cpu}, {client.cpus} usable"),
        ("system", client.system),
        ("versions", f"ipytune {client.ipytune}, Python {client.python}"),
        ("processes", ", ".join(str(step.processes) for step in report.steps)),
        ("share of a core", "; ".join(", ".join(f"{s:.0%}" for s in step.cpu_shares) for step in report.steps)),
        ("loop lag p99", ", ".join(f"{step.lag_p99 * 1000:.1f} ms" for step in report.steps)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="dim">{escape(report.endpoint.model)} · '
        f"{escape(report.endpoint.base_url)} · {escape(report.started_at)} · {escape(report.ended)} after "
        f"{report.seconds:g} s</p>{warning}"
        f'<div class="curves">{"".join(f"<div>{svg}</div>" for svg in curves(report.steps) if svg)}</div>'
        f'<h2>Steps</h2><div class="scroll">{step_table(report)}</div>'
        + (f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "")
        + f"<h2>What was asked</h2>{_facts(asked)}<h2>Where the client ran</h2>{_facts(where)}"
        "<h2>What the numbers mean</h2><p>TTFT: from sending a request over an open connection to its first token of "
        "any kind. ITL: between tokens (between chunks, if they hold several). TPOT: time a token after the first. "
        "Tokens/s: all output tokens that came in the steady part, over its length. Goodput: requests that met every "
        "objective, per second. A percentile without enough requests is left out.</p></body></html>\n"
    )


def step_table(report: LoadReport) -> str:
    """The steps as an HTML table; everything escaped."""
    heads, rows = table(report.steps)
    head = "".join(f"<th>{escape(word)}</th>" for word in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _facts(pairs: list[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in pairs)
    return f'<table class="facts">{rows}</table>'
