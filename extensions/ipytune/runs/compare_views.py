"""A comparison of runs drawn: HTML with an SVG for notebooks, tables with small curves for terminals.

No script and nothing fetched; text takes the page's own colour and the lines are readable on light and dark, so the
picture is right in both. Names and settings come from files and are escaped.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from html import escape

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ipytune.chart import Axes
from ipytune.endpoints.format import rate
from ipytune.runs import words
from ipytune.runs.compare import Compared, Comparison, Mark

_WIDTH, _HEIGHT = 680, 260
# Told apart by most colour-blind readers, and at least 3:1 against white and against near-black.
_COLOURS = ("#1e88e5", "#e07b00", "#2e9e5b", "#d81b60", "#8e6ce0", "#00979d", "#a1770a", "#808080")
_DASHES = ("", "7 3", "2 3")  # once the colours are used up
_AXES = {"step": "step", "tokens": "tokens", "time": "seconds of training"}
_BARS = "▁▂▃▄▅▆▇█"
_BARS_WIDE = 16
_CELL = "text-align:left;padding:3px 14px 3px 0;border:0;vertical-align:top"


def _results(run: Compared) -> list[tuple[str, str]]:
    """(column, value) in the order in which they are shown."""
    found, report = run.summary, run.report
    of = "" if found.total_steps is None else f" of {found.total_steps:,}"
    speed, memory = report.get("tokens_per_second"), report.get("peak_memory_bytes")
    return [
        ("State", found.state),
        ("Step", f"{found.step:,}{of}"),
        ("Loss", words.loss(run.curve.training[-1].loss if run.curve.training else found.loss)),
        ("Held-out loss", words.loss(found.eval_loss)),
        ("Speed", rate(speed if isinstance(speed, (int, float)) else None)),
        ("Time", words.duration(found.seconds)),
        ("Peak memory", words.size(memory) if isinstance(memory, int) else words.NONE),
        ("Adapter", "yes" if found.adapter else "no"),
    ]


# --- HTML ------------------------------------------------------------------------------------------------------------


def html(comparison: Comparison) -> str:
    runs = comparison.runs
    parts = [
        f"<div><b>{len(runs)} runs</b> <span style='opacity:.7'>· training loss (smoothed, lines) and held-out loss "
        f"(dots) by {escape(_AXES[comparison.by])}</span></div>",
        losses_svg(comparison),
        _html_table(
            ["", *(name for name, _ in _results(runs[0]))],
            [
                [_swatch(index) + _name(run, comparison), *(escape(value) for _, value in _results(run))]
                for index, run in enumerate(runs)
            ],
        ),
    ]
    if comparison.differences:
        rows = [
            [
                f"<code style='background:none'>{escape(name)}</code>",
                *(escape(words.setting(value)) for value in values),
            ]
            for name, values in comparison.differences.items()
        ]
        heads = [_swatch(index) + escape(run.label) for index, run in enumerate(runs)]
        parts.append(_html_table(["<b>Settings that differ</b>", *heads], rows))
    else:
        parts.append("<div style='opacity:.7'>The settings are the same.</div>")
    style = (
        "border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:12px 16px;max-width:960px;overflow-x:auto;"
        "font:13px/1.45 system-ui,sans-serif"
    )
    return f'<div style="{style}">{"".join(parts)}</div>'


def losses_svg(comparison: Comparison) -> str:
    """All curves over one another, in one scale that starts at zero loss. Empty without a point."""
    marks = [mark for run in comparison.runs for mark in (*run.curve.training, *run.curve.held_out)]
    finite = [mark for mark in marks if math.isfinite(mark.loss)]
    if not finite:
        return ""
    axes = Axes.around([mark.at for mark in finite], [mark.loss for mark in finite], _WIDTH, _HEIGHT)
    drawn = "".join(_run_svg(index, run, axes) for index, run in enumerate(comparison.runs))
    said = "; ".join(f"{run.label}: {_from_to(run.curve.training)}" for run in comparison.runs)
    unit = _AXES[comparison.by]
    return axes.svg(drawn, unit, f"Losses by {unit}. {said}")


def _run_svg(index: int, run: Compared, axes: Axes) -> str:
    def finite(marks: Sequence[Mark]) -> list[tuple[float, float]]:
        return [(mark.at, mark.loss) for mark in marks if math.isfinite(mark.loss)]

    dots = "".join(
        f'<circle cx="{axes.x(at):.1f}" cy="{axes.y(loss):.1f}" r="4" fill="{_colour(index)}" stroke="currentColor" '
        'stroke-opacity=".5"/>'
        for at, loss in finite(run.curve.held_out)
    )
    return (
        f"<g><title>{escape(run.label)}</title>"
        f'<polyline fill="none" stroke="{_colour(index)}" stroke-width="2" stroke-dasharray="{_dash(index)}" '
        f'points="{axes.path(finite(run.curve.training))}"/>{dots}</g>'
    )


def _html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    head = "".join(f'<th scope="col" style="{_CELL};opacity:.7;font-weight:500">{cell}</th>' for cell in heads)
    lines = ("".join(f'<td style="{_CELL}">{cell}</td>' for cell in row) for row in rows)
    body = "".join(f'<tr style="background:none">{line}</tr>' for line in lines)
    return (
        f'<table style="border:0;margin:6px 0;border-collapse:collapse;background:none"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _name(run: Compared, comparison: Comparison) -> str:
    best = comparison.best is run
    return f"<b>{escape(run.label)}</b>" + (" · best held-out loss" if best else "")


def _swatch(index: int) -> str:
    return (
        '<svg width="22" height="8" style="vertical-align:middle;margin-right:6px" aria-hidden="true"><line x1="0" '
        f'x2="22" y1="4" y2="4" stroke="{_colour(index)}" stroke-width="3" stroke-dasharray="{_dash(index)}"/></svg>'
    )


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _dash(index: int) -> str:
    return _DASHES[index // len(_COLOURS) % len(_DASHES)]


def _from_to(marks: Sequence[Mark]) -> str:
    finite = [mark.loss for mark in marks if math.isfinite(mark.loss)]
    return f"from {finite[0]:.3g} to {finite[-1]:.3g}" if finite else "no losses yet"


# --- terminal --------------------------------------------------------------------------------------------------------


def text(comparison: Comparison, width: int) -> str:
    page = io.StringIO()
    # force_jupyter: in a kernel rich would display the table as a cell's output, and leave the page empty
    console = Console(file=page, width=width, color_system=None, legacy_windows=False, force_jupyter=False)
    console.print(tables(comparison))
    return page.getvalue().rstrip() + "\n"


def tables(comparison: Comparison) -> Group:
    """Results with a small curve each (all on the same scales), then the settings that differ."""
    results = Table("run", f"loss by {_AXES[comparison.by]}", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, _ in _results(comparison.runs[0]):
        results.add_column(name.lower(), justify="right" if name in {"Loss", "Held-out loss"} else "left")
    for run in comparison.runs:
        label = Text(words.printable(run.label), style="bold" if comparison.best is run else "")
        cells = [Text(value) for _, value in _results(run)]
        results.add_row(label, Text(_bars(run, comparison)), *cells)
    parts: list[Table | Text] = [results]
    if comparison.best is not None:
        parts.append(Text(f"best held-out loss: {words.printable(comparison.best.label)}"))
    if comparison.differences:
        settings = Table("settings that differ", box=None, padding=(0, 2, 0, 0), header_style="dim")
        for run in comparison.runs:
            settings.add_column(Text(words.printable(run.label)), overflow="fold")
        for name, values in comparison.differences.items():
            settings.add_row(Text(words.printable(name)), *(Text(words.printable(words.setting(v))) for v in values))
        parts += [Text(""), settings]
    else:
        parts.append(Text("The settings are the same."))
    return Group(*parts)


def _bars(run: Compared, comparison: Comparison) -> str:
    """The training curve in block letters: position is the axis of all runs, height their common scale from zero."""
    finite = [mark for each in comparison.runs for mark in each.curve.training if math.isfinite(mark.loss)]
    if not finite:
        return ""
    first, last = min(mark.at for mark in finite), max(mark.at for mark in finite)
    top = max(mark.loss for mark in finite) or 1.0
    columns: dict[int, float] = {}
    for mark in run.curve.training:
        if math.isfinite(mark.loss):
            share = (mark.at - first) / (last - first) if last > first else 0.0
            columns[min(int(share * _BARS_WIDE), _BARS_WIDE - 1)] = mark.loss  # the last of a column stands for it
    drawn, bar = "", " "
    for at in range(max(columns, default=-1) + 1):  # a column without a record of its own repeats the one before
        bar = _BARS[min(int(columns[at] / top * len(_BARS)), len(_BARS) - 1)] if at in columns else bar
        drawn += bar
    return drawn
