"""Latency against load, as SVG that stands alone: no script, nothing fetched, colours that hold on light and on dark.

Pure: points in, text out. Every word that comes from outside is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from ipytune.load.report import StepResult, brief
from ipytune.series import ticks

_WIDTH, _HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 34, 62
# Okabe and Ito's colours: told apart by the colour-blind, and visible on white and on black.
_COLOURS = ("#0072b2", "#e69f00", "#d55e00", "#009e73")


@dataclass(frozen=True)
class Line:
    """name: for the legend. points: (x, y), y None where there is none."""

    name: str
    points: tuple[tuple[float, float | None], ...]


def curves(steps: Sequence[StepResult]) -> list[str]:
    """The pictures of a measurement: TTFT, ITL and throughput against the load, latency against throughput."""
    if not steps:
        return []
    steps = sorted(steps, key=lambda step: step.value)
    load_name = "users at once" if steps[0].kind == "closed" else "requests/s offered"
    gap = steps[0].numbers.gap_name

    def of(read: Callable[[StepResult], float | None]) -> tuple[tuple[float, float | None], ...]:
        return tuple((step.value, read(step)) for step in steps)

    def over_tokens(read: Callable[[StepResult], float | None]) -> tuple[tuple[float, float | None], ...]:
        return tuple((step.numbers.output_tokens_per_second, read(step)) for step in steps)

    return [
        chart(
            "Time to first token",
            [
                Line("p50", of(lambda s: s.numbers.ttft.p50)),
                Line("p90", of(lambda s: s.numbers.ttft.p90)),
                Line("p99", of(lambda s: s.numbers.ttft.p99)),
            ],
            load_name,
            brief,
        ),
        chart(
            f"{gap[0].upper()}{gap[1:]}",
            [
                Line("p50", of(lambda s: s.numbers.itl.p50)),
                Line("p90", of(lambda s: s.numbers.itl.p90)),
                Line("p99", of(lambda s: s.numbers.itl.p99)),
            ],
            load_name,
            brief,
        ),
        chart("Throughput", [Line("tokens/s", of(lambda s: s.numbers.output_tokens_per_second))], load_name, _count),
        chart(
            "Time to first token against throughput",
            [
                Line("p50", over_tokens(lambda s: s.numbers.ttft.p50)),
                Line("p99", over_tokens(lambda s: s.numbers.ttft.p99)),
            ],
            "output tokens/s",
            brief,
        ),
    ]


def chart(title: str, lines: Sequence[Line], x_name: str, y_words: Callable[[float], str]) -> str:
    """One picture; empty text where no line has a point. The x axis is logarithmic where it spans a factor of 20."""
    drawn = [Line(line.name, tuple(p for p in line.points if p[1] is not None)) for line in lines]
    drawn = [line for line in drawn if line.points]
    if not drawn:
        return ""
    xs = [x for line in drawn for x, _ in line.points]
    top = max(y or 0.0 for line in drawn for _, y in line.points) * 1.06 or 1.0
    logarithmic = min(xs) > 0 and max(xs) / min(xs) >= 20
    low, high = (min(xs) / 1.15, max(xs) * 1.15) if logarithmic else (0.0, max(xs) * 1.04 or 1.0)

    def x_of(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if logarithmic else (value - low) / (high - low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y_of(value: float) -> float:
        return _TOP + (1 - value / top) * (_HEIGHT - _TOP - _BOTTOM)

    grid = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y_of(tick):.1f}" y2="{y_of(tick):.1f}" stroke="currentColor" '
        f'stroke-opacity=".15"/><text x="{_LEFT - 6}" y="{y_of(tick) + 4:.1f}" text-anchor="end">'
        f"{escape(y_words(tick)) if tick else 0}</text>"
        for tick in ticks(0, top)
    )
    at = sorted(set(xs)) if logarithmic else ticks(low, high, 6)
    marks, right = [], -math.inf
    for tick in at:
        if x_of(tick) - right >= 30:  # labels must not run into one another
            right = x_of(tick)
            marks.append(f'<text x="{right:.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{tick:g}</text>')
    body, legend, left = [], [], _LEFT
    for line, colour in zip(drawn, _COLOURS, strict=False):
        points = [(x_of(x), y_of(y or 0.0)) for x, y in line.points]
        told = "; ".join(f"{x:g}: {y_words(y or 0.0)}" for x, y in line.points)
        body.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="'
            f'{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"><title>{escape(f"{line.name} · {told}")}</title>'
            "</polyline>"
        )
        body.append("".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points))
        legend.append(
            f'<rect x="{left}" y="{_HEIGHT - 14}" width="12" height="3" fill="{colour}"/>'
            f'<text x="{left + 17}" y="{_HEIGHT - 9}">{escape(line.name)}</text>'
        )
        left += 36 + 7 * len(line.name)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" style="max-width:{_WIDTH}px;font:11px system-ui" '
        f'fill="currentColor" role="img" aria-label="{escape(f"{title} against {x_name}")}">'
        f'<text x="{_LEFT}" y="16" font-size="13" font-weight="600">{escape(title)}</text>'
        f"{grid}{''.join(marks)}{''.join(body)}{''.join(legend)}"
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - _BOTTOM + 33}" text-anchor="end" opacity=".7">'
        f"{escape(x_name)}</text>"
        "</svg>"
    )


def _count(value: float) -> str:
    return f"{value:,.0f}"
