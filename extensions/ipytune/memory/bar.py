"""The estimate as a stacked bar against what there is: static SVG for notebooks, characters for terminals.

Text takes the page's colour and the parts have middle tones, so it reads on light and dark. No script; names are
escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ipytune.memory.advice import Fit, Verdict, size
from ipytune.memory.estimate import Part

COLOURS = {
    "weights": "#4c7fb8",
    "adapter": "#d9822b",
    "gradients": "#c9564f",
    "optimiser": "#4fa3a0",
    "activations": "#5b9e52",
    "working": "#a372b5",
    "framework": "#94745c",
    "overhead": "#8a8a8a",
}
_MARKS = {Verdict.FITS: "✓", Verdict.TIGHT: "!", Verdict.DOES_NOT_FIT: "✗"}
_WIDTH, _BAR, _TOP, _LINE = 640, 26, 22, 18
_COLUMNS = 3


def bar_html(fit: Fit, measured: int | None = None) -> str:
    """The bar, its legend and the verdict. measured: what a probe needed, drawn as a thin bar below."""
    need = fit.device_need
    used = fit.estimate.total
    scale = (_WIDTH - 2) / max(used, need.limit.free, measured or 0, 1)
    shapes, left = [], 1.0
    for part in fit.estimate.parts:
        width = part.bytes * scale
        shapes.append(
            f'<rect x="{left:.1f}" y="{_TOP}" width="{width:.1f}" height="{_BAR}" fill="{COLOURS[part.key]}">'
            f"<title>{escape(_named(part))}</title></rect>"
        )
        left += width
    bottom = _TOP + _BAR
    if measured is not None:
        shapes.append(
            f'<rect x="1" y="{bottom + 3}" width="{measured * scale:.1f}" height="6" fill="currentColor" opacity=".7"/>'
            f'<text x="1" y="{bottom + 22}">probe: {escape(size(measured))}</text>'
        )
        bottom += 22
    at = min(_WIDTH - 1, 1 + need.limit.free * scale)
    anchor = "end" if at > _WIDTH / 2 else "start"
    shapes.append(
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 6}" y2="{bottom + 4}" stroke="currentColor" stroke-width="2"/>'
        f'<text x="{at:.1f}" y="{_TOP - 10}" text-anchor="{anchor}">free: {escape(size(need.limit.free))}</text>'
    )
    for number, part in enumerate(fit.estimate.parts):
        x, y = 1 + number % _COLUMNS * (_WIDTH / _COLUMNS), bottom + 26 + number // _COLUMNS * _LINE
        shapes.append(
            f'<rect x="{x:.0f}" y="{y - 9:.0f}" width="10" height="10" fill="{COLOURS[part.key]}"/>'
            f'<text x="{x + 15:.0f}" y="{y:.0f}">{escape(_named(part))}</text>'
        )
    height = bottom + 26 + -(-len(fit.estimate.parts) // _COLUMNS) * _LINE
    label = f"Memory: {size(used)} needed, {size(need.limit.free)} free"
    words = "<br>".join(escape(line) for line in fit.words().splitlines())
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" width="100%" style="max-width:{_WIDTH}px;font:12px system-ui" '
        f'fill="currentColor" role="img" aria-label="{escape(label)}">{"".join(shapes)}</svg>'
        f'<div style="margin-top:6px">{words}</div>'
    )


def bar_text(fit: Fit, measured: int | None = None, width: int = 40) -> str:
    """A line a part, the sum, and the verdict. width: characters of the longest bar."""
    need = fit.device_need
    lines = parts_text(fit.estimate.parts, need.limit.free, width)
    lines.append(f"{'free':<18} {size(need.limit.free):>9}  {need.limit.name}")
    if measured is not None:
        lines.append(f"{'probe':<18} {size(measured):>9}  measured in one step")
    return "\n".join([*lines, f"{_MARKS[fit.verdict]} {fit.words()}"])


def parts_text(parts: Sequence[Part], free: int = 0, width: int = 40) -> list[str]:
    """Each part at the place where it begins in the stack. The width is what is needed, or free if that is more, but at
    most twice what is needed: the parts stay visible where there is plenty."""
    used = sum(part.bytes for part in parts)
    scale = width / max(used, min(free, 2 * used), 1)
    lines, start = [], 0
    for part in parts:
        first, last = round(start * scale), round((start + part.bytes) * scale)
        lines.append(f"{part.label:<18} {size(part.bytes):>9}  {' ' * first}{'█' * (last - first)}".rstrip())
        start += part.bytes
    return [*lines, f"{'sum':<18} {size(used):>9}"]


def _named(part: Part) -> str:
    return f"{part.label} {size(part.bytes)}"
