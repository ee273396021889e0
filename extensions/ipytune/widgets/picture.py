"""The static picture of a panel: HTML and text for where no widget runs (GitHub, nbviewer, a reopened notebook).

Self-contained: inline styles and SVG, no script, no font, nothing fetched. Whatever came from a model, a server or a
log is escaped: it is untrusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from ipytune.chart import Axes
from ipytune.compare.differences import Part
from ipytune.compare.page import marked
from ipytune.endpoints.untrusted import visible
from ipytune.series import Point

_FRAME = (
    "border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:12px 16px;max-width:720px;"
    "font:13px/1.45 system-ui,sans-serif"
)


def frame(title: str, state: str, *parts: str) -> str:
    """A bordered box with a title and a state; `parts` are HTML already."""
    head = f'<div><b>{escape(title)}</b> <span style="opacity:.7">· {escape(state)}</span></div>'
    return f'<div style="{_FRAME}">{head}{"".join(parts)}</div>'


def facts_table(facts: Iterable[Sequence[str]]) -> str:
    cells = "".join(
        f'<td style="text-align:left;padding:2px 18px 2px 0;border:0"><span style="opacity:.7">{escape(label)}</span>'
        f"<br>{escape(value)}</td>"
        for label, value in facts
    )
    return f'<table style="border:0;margin:6px 0 0"><tr style="background:none">{cells}</tr></table>'


def problem_box(what: str, why: str, remedy: str, log: str = "") -> str:
    folded = f"<details><summary>Log</summary><pre>{escape(log)}</pre></details>" if log else ""
    words = " ".join(part for part in (why, remedy) if part)
    return (
        '<div style="border-left:3px solid #c62828;padding:2px 0 2px 10px;margin-top:8px">'
        f"<b>{escape(what)}</b> {escape(words)}{folded}</div>"
    )


def answer_column(title: str, text: str, line: str) -> str:
    return (
        '<td style="vertical-align:top;text-align:left;padding:4px 16px 4px 0;border:0">'
        f'<b>{escape(visible(title))}</b><div style="opacity:.7">{escape(visible(line))}</div>'
        f'<pre dir="auto" style="white-space:pre-wrap;margin:4px 0 0;background:none">{escape(visible(text))}</pre>'
        "</td>"
    )


def columns(cells: Sequence[str]) -> str:
    row = f'<tr style="background:none">{"".join(cells)}</tr>'
    return f'<table style="border:0;width:100%;table-layout:fixed">{row}</table>'


def loss_svg(points: Sequence[Point], evals: Sequence[tuple[int, float]] = ()) -> str:
    """The curve as SVG: the loss thin, its moving average thick, held-out losses as dots. Empty without points."""
    drawn = [point for point in points if math.isfinite(point.loss)]
    if not drawn:
        return ""
    held_out = [(step, loss) for step, loss in evals if math.isfinite(loss)]
    axes = Axes.around([p.step for p in drawn], [*(p.loss for p in drawn), *(loss for _, loss in held_out)])
    dots = "".join(
        f'<circle cx="{axes.x(step):.1f}" cy="{axes.y(loss):.1f}" r="4" fill="#e07b00"/>' for step, loss in held_out
    )
    lines = (
        f'<polyline fill="none" stroke="#1976d2" stroke-opacity=".35" '
        f'points="{axes.path((p.step, p.loss) for p in drawn)}"/>'
        f'<polyline fill="none" stroke="#1976d2" stroke-width="2" '
        f'points="{axes.path((p.step, p.smooth) for p in drawn)}"/>'
    )
    said = f"Training loss by step, from {drawn[0].smooth:.3g} to {drawn[-1].smooth:.3g}"
    return axes.svg(lines + dots, "step", said)


def samples(said: Sequence[tuple[str, str]]) -> str:
    """Questions, and what was answered to each while it learned."""
    rows = "".join(
        f'<dt style="opacity:.7">{escape(question)}</dt>'
        f'<dd style="margin:0 0 6px;white-space:pre-wrap">{escape(answer)}</dd>'
        for question, answer in said
    )
    return f'<dl style="margin:8px 0 0">{rows}</dl>' if rows else ""


def prompt(words: str) -> str:
    return f'<div dir="auto" style="margin-top:8px;white-space:pre-wrap;font-weight:500">{escape(visible(words))}</div>'


def folded(title: str, *parts: str) -> str:
    """What is there when it is wanted; `parts` are HTML already."""
    return f'<details style="margin-top:8px"><summary>{escape(visible(title))}</summary>{"".join(parts)}</details>'


def word_difference(title: str, parts: Sequence[Part]) -> str:
    """Two texts as one: struck through what only the first has, underlined what only the second has."""
    shown = f'<pre dir="auto" style="white-space:pre-wrap;margin:4px 0 0;background:none">{marked(parts)}</pre>'
    return folded(title, shown)


def lines(words: Sequence[str]) -> str:
    """Sentences, one below another."""
    return "".join(f'<div style="margin-top:4px">{escape(visible(said))}</div>' for said in words)
