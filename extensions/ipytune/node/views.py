"""A node and its measurements as HTML and SVG for a notebook: no script, readable on light and dark. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ipytune.chart import Axes
from ipytune.node.topology import MEANING, Links, Node

_CELL = "padding:2px 10px;text-align:left;white-space:nowrap"
# Ways between devices by what they cost: the darker, the nearer. One hue, so that it reads without colour vision.
_SHADES = {"X": 0.0, "NV": 0.55, "PIX": 0.4, "PXB": 0.32, "PHB": 0.24, "NODE": 0.14, "SYS": 0.04}
_STROKES = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table; what is not text is written as it prints, floats with three digits or more."""
    heads = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{_said(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def node_table(node: Node) -> str:
    """What the machine consists of, a line a kind."""
    cores, gpus = (sum(node_.of_a_gpu == wanted for node_ in node.numa) for wanted in (False, True))
    rows: list[tuple[str, str]] = [
        ("processor", f"{node.processor} ({node.architecture}), {node.cores} cores"),
        ("caches of a core", ", ".join(f"{name} {bytes_said(size)}" for name, size in node.caches) or "not told"),
        ("pages", bytes_said(node.page_bytes)),
        ("memory nodes", f"{cores} with cores" + (f", {gpus} without (GPU memory)" if gpus else "")),
    ]
    rows += [
        (
            f"&nbsp;&nbsp;node {one.number}",
            f"{bytes_said(one.total)}, {len(one.cores)} cores, distances {' '.join(map(str, one.distances))}",
        )
        for one in node.numa[:12]
    ]
    speeds = [
        f"{card.name} {card.gigabits:g} Gb/s" if card.gigabits else f"{card.name}, speed not told"
        for card in node.network
    ]
    rows += [
        ("network", ", ".join(speeds) or "none"),
        ("GPUs", f"{len(node.links.gpus)}" if node.links else "none (no nvidia-smi here)"),
    ]
    body = "".join(
        f'<tr><td style="{_CELL}">{name}</td><td style="{_CELL}">{escape(said)}</td></tr>' for name, said in rows
    )
    return f"<table><tbody>{body}</tbody></table>"


def links_table(links: Links) -> str:
    """The matrix of ways between devices, the nearer the darker, with the legend of those that occur."""
    head = "".join(f"<th>{escape(_named(links, name))}</th>" for name in links.devices)
    rows = "".join(
        f"<tr><th>{escape(_named(links, one))}</th>"
        + "".join(_way(links.ways.get((one, other), "?")) for other in links.devices)
        + "</tr>"
        for one in links.devices
    )
    kinds = {_kind(way) for way in links.ways.values()}
    legend = "; ".join(f"{kind}: {meaning}" for kind, meaning in MEANING.items() if kind in kinds)
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table><p>{escape(legend)}</p>"


def curve(lines: Mapping[str, Sequence[tuple[float, float]]], unit: str, label: str, marks: Mapping[str, float]) -> str:
    """Lines over sizes, which stand at their logarithm. unit: of the sizes; label: what is drawn over them;
    marks: names of sizes that get a vertical line."""
    places = {name: [(math.log10(size), value) for size, value in line] for name, line in lines.items()}
    across = [x for line in places.values() for x, _ in line]
    axes = Axes.around(across, [y for line in places.values() for _, y in line])
    drawn = f'<text x="{axes.x(axes.first):.1f}" y="9" opacity=".7">{escape(label)}</text>'
    for name, size in marks.items():
        if axes.first <= (x := math.log10(size)) <= axes.last:
            drawn += (
                f'<line x1="{axes.x(x):.1f}" x2="{axes.x(x):.1f}" y1="{axes.y(axes.top):.1f}" y2="{axes.y(0):.1f}" '
                f'stroke="currentColor" stroke-opacity=".4" stroke-dasharray="3 3"/>'
                f'<text x="{axes.x(x) + 3:.1f}" y="{axes.y(axes.top) + 10:.1f}">{escape(name)}</text>'
            )
    for number, (name, line) in enumerate(places.items()):
        colour = _STROKES[number % len(_STROKES)]
        drawn += f'<polyline points="{axes.path(line)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        drawn += "".join(
            f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in line
        )
        drawn += f'<text x="60" y="{36 + 14 * number}" fill="{colour}">{escape(name)}</text>' if len(places) > 1 else ""
    return axes.svg(drawn, unit, label)


def bytes_said(size: float) -> str:
    """A size in binary units, three digits.

    >>> bytes_said(65536), bytes_said(96 * 2**30), bytes_said(2**20 + 2**19)
    ('64 KiB', '96 GiB', '1.5 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.3g} {unit}"
        size /= 1024
    raise AssertionError


def _named(links: Links, device: str) -> str:
    return f"{device} ({links.cards[device]})" if device in links.cards else device


def _kind(way: str) -> str:
    return "NV" if way.startswith("NV") else way


def _way(way: str) -> str:
    shade = _SHADES.get(_kind(way), 0.0)
    return f'<td style="text-align:center;background:rgba(31,119,180,{shade})">{escape(way)}</td>'


def _said(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return escape(str(cell))
