"""The ground of a line chart as SVG: scales, grid, ticks. Text takes the page's colour: right on light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from ipytune.series import ticks

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 32


@dataclass(frozen=True)
class Axes:
    """From first to last across, from zero to top upwards; width and height in pixels of the drawing."""

    first: float
    last: float
    top: float
    width: int = 640
    height: int = 200

    @classmethod
    def around(cls, across: Iterable[float], upwards: Iterable[float], width: int = 640, height: int = 200) -> Axes:
        """Axes that hold all these finite values, of which there must be one at least in each direction."""
        places = list(across)
        first, last = min(places), max(places)
        return cls(first, last if last > first else first + 1, max(upwards) or 1.0, width, height)

    def x(self, value: float) -> float:
        return _LEFT + (value - self.first) / (self.last - self.first) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _TOP + (1 - value / self.top) * (self.height - _TOP - _BOTTOM)

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        """The points of a polyline."""
        return " ".join(f"{self.x(across):.1f},{self.y(up):.1f}" for across, up in points)

    def svg(self, drawn: str, unit: str, label: str) -> str:
        """The chart. drawn: SVG already; unit: of the horizontal axis; label: what a screen reader says of it."""
        lines = "".join(
            f'<line x1="{_LEFT}" x2="{self.width - _RIGHT}" y1="{self.y(tick):.1f}" y2="{self.y(tick):.1f}" '
            f'stroke="currentColor" stroke-opacity=".15"/>'
            f'<text x="{_LEFT - 6}" y="{self.y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
            for tick in ticks(0, self.top)
        )
        marks = "".join(
            f'<text x="{self.x(tick):.1f}" y="{self.height - 16}" text-anchor="middle">{tick:,.10g}</text>'
            for tick in ticks(self.first, self.last)
        )
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" width="100%" style="max-width:{self.width}px;'
            f'font:11px system-ui;margin:6px 0" fill="currentColor" role="img" aria-label="{escape(label)}">'
            f"{lines}{marks}{drawn}"
            f'<text x="{self.width - _RIGHT}" y="{self.height - 2}" text-anchor="end" opacity=".7">{escape(unit)}'
            "</text></svg>"
        )
