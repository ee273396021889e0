"""A comparison as an HTML page of its own: no script, nothing fetched, light or dark as the reader's machine is.

Whatever a person, a model or a server wrote is escaped, and its control characters are shown as such. The page's policy
forbids scripts besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from ipytune.compare import ballot
from ipytune.compare.dialogue import Round
from ipytune.compare.differences import Part, difference
from ipytune.compare.stability import groups, sentence
from ipytune.endpoints.exchange import State, View
from ipytune.endpoints.format import summary
from ipytune.endpoints.untrusted import one_line, visible

if TYPE_CHECKING:
    from ipytune.compare.comparison import Comparison

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --red: #c62828; --green: #2e7d32; }
@media (prefers-color-scheme: dark) { :root { --red: #ff8a80; --green: #81c784; } }
body { max-width: 1200px; margin: 2em auto; padding: 0 1em; font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4em; } h2 { margin: 2em 0 .5em; font-size: 1.05em; white-space: pre-wrap; overflow-wrap: anywhere; }
small, .facts { opacity: .75; font-size: .87em; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22em, 100%), 1fr)); gap: 1em; }
article { min-width: 0; padding: .8em 1em; border: 1px solid var(--line); border-radius: 6px; }
article.best { border-color: var(--green); }
pre { margin: .5em 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; }
.problem { padding-left: .7em; border-left: 3px solid var(--red); }
del { color: var(--red); } ins { color: var(--green); }
table { border-collapse: collapse; } td, th { padding: .2em 1em .2em 0; text-align: left; }
"""


def as_html(comparison: Comparison) -> str:
    """The page."""
    parts = [_round(comparison, item) for item in comparison.rounds]
    said = "".join(f"<li>{escape(words)}</li>" for words in ballot.sentences(comparison.tally()))
    title = f"Comparison of {', '.join(visible(endpoint.name) for endpoint in comparison.endpoints)}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{_endpoints(comparison)}"
        f"{f'<h2>Votes</h2><ul>{said}</ul>' if said else ''}{''.join(parts) or '<p>Nothing was asked.</p>'}"
        "</main></body></html>\n"
    )


def _endpoints(comparison: Comparison) -> str:
    rows = "".join(
        f"<tr><td>{escape(visible(item.name))}</td><td>{escape(visible(item.model))}</td>"
        f"<td>{escape(visible(item.base_url))}</td></tr>"
        for item in comparison.endpoints
    )
    return f"<table><thead><tr><th>Name</th><th>Model</th><th>URL</th></tr></thead><tbody>{rows}</tbody></table>"


def _round(comparison: Comparison, item: Round) -> str:
    names, columns, vote = comparison.names(item), comparison.seen(item), comparison.shown_vote(item)
    best = "ABCD".find(vote) if len(vote) == 1 else -1
    cells = "".join(
        _column(name, takes, place == best) for place, (name, takes) in enumerate(zip(names, columns, strict=True))
    )
    terms = [f"{name} {value!r}" for name, value in item.terms.options.items()]
    if item.terms.system:
        terms.insert(0, f"system: {one_line(item.terms.system, 300)}")
    heading = "" if item.fresh else "<small>continues</small> "
    voted = {"tie": "Vote: a tie.", "bad": "Vote: none is good."}.get(vote, "")
    return (
        f'<section><h2 dir="auto">{heading}{escape(visible(item.prompt))}</h2>'
        f"<small>{escape(visible(' · '.join(terms)))}</small>"
        f'<div class="columns">{cells}</div>{f"<p>{voted}</p>" if voted else ""}'
        f"{_differences(names, columns)}</section>"
    )


def _column(name: str, takes: Sequence[View], best: bool) -> str:
    view = takes[0]
    line = summary(view.metrics) if view.metrics.ttft is not None else view.state.value
    problem = ""
    if view.error is not None:
        problem = f'<p class="problem">{escape(visible(str(view.error)))}</p>'
    thought = ""
    if view.reasoning:
        thought = f"<details><summary>Reasoning</summary><pre>{escape(visible(view.reasoning))}</pre></details>"
    calls = "".join(f"<pre>{escape(visible(f'{call.name}({call.arguments})'))}</pre>" for call in view.tool_calls)
    return (
        f'<article class="{"best" if best else ""}"><b>{escape(visible(name))}</b>{" · best" if best else ""}'
        f'<div class="facts">{escape(line)}</div>{thought}<pre dir="auto">{escape(visible(view.text))}</pre>'
        f"{calls}{problem}{_repeats(takes)}</article>"
    )


def _repeats(takes: Sequence[View]) -> str:
    if len(takes) < 2:
        return ""
    found = groups([take.text for take in takes if take.state is State.DONE])
    rows = "".join(f"<li>{group.count} times<pre>{escape(visible(group.text))}</pre></li>" for group in found)
    return f"<details><summary>{escape(sentence(found))}</summary><ol>{rows}</ol></details>"


def _differences(names: Sequence[str], columns: Sequence[Sequence[View]]) -> str:
    first = columns[0][0]
    parts = []
    for name, takes in list(zip(names, columns, strict=True))[1:]:
        if first.text and takes[0].text:
            title = escape(visible(f"From {names[0]} to {name}"))
            shown = marked(difference(first.text, takes[0].text))
            parts.append(f"<details><summary>{title}</summary><pre>{shown}</pre></details>")
    return "".join(parts)


def marked(parts: Sequence[Part]) -> str:
    """A difference as HTML: what only the first has in <del>, what only the second has in <ins>; escaped."""
    shown = ((part.kind, escape(visible(part.text))) for part in parts)
    return "".join(text if kind == "same" else f"<{kind}>{text}</{kind}>" for kind, text in shown)
