"""A round as a terminal shows it: a box a column. Text of models goes through `plain.visible`, never through markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ipytune.compare.dialogue import Round
from ipytune.compare.differences import difference
from ipytune.compare.stability import groups, sentence
from ipytune.endpoints.exchange import State, View
from ipytune.endpoints.format import seconds, summary
from ipytune.endpoints.untrusted import visible

if TYPE_CHECKING:
    from ipytune.compare.comparison import Comparison

GLANCE = 0.15  # seconds between pictures
_STYLES = {"same": "", "del": "red strike", "ins": "green underline"}


def columns(comparison: Comparison, item: Round, height: int | None = None, width: int = 80) -> Table:
    """The answers beside one another. height: lines there are room for; only the end of longer texts is shown then."""
    names, seen = comparison.names(item), comparison.seen(item)
    table = Table.grid(expand=True, padding=(0, 1))
    for _ in names:
        table.add_column(ratio=1)
    room = None if height is None else (max(3, height - 8), max(10, width // len(names) - 6))
    table.add_row(*(_box(name, takes, item, room) for name, takes in zip(names, seen, strict=True)))
    return table


def end_of(text: str, lines: int, width: int) -> str:
    """As much of the end of `text` as fits into so many lines of this width.

    >>> end_of("one\\ntwo\\nthree", 2, 10), end_of("abcdefgh", 2, 3)
    ('two\\nthree', 'cdefgh')
    """
    kept: list[str] = []
    left = lines
    for line in reversed(text[-lines * width :].split("\n")):
        if left <= 0:
            break
        kept.append(line[-left * width :])
        left -= max(1, -(-len(line) // width))
    return "\n".join(reversed(kept))


def difference_of(first: str, second: str) -> Text:
    """What only the first has, struck through; what only the second has, underlined."""
    text = Text()
    for part in difference(first, second):
        text.append(visible(part.text), style=_STYLES[part.kind])
    return text


def _box(name: str, takes: Sequence[View], item: Round, room: tuple[int, int] | None) -> Panel:
    view = takes[-1] if takes[-1].error is not None or not takes[-1].state.final else takes[0]
    thinking = not view.text and bool(view.reasoning)
    words = visible(f"(reasoning) {view.reasoning}" if thinking else view.text)
    parts = [Text(words if room is None else end_of(words, *room), style="dim" if thinking else "")]
    parts += [Text(visible(f"{call.name}({call.arguments})"), style="cyan") for call in view.tool_calls]
    if view.error is not None:
        parts.append(Text(visible(str(view.error)), style="red"))
    parts += [Text(line, style="dim") for line in _facts(takes, view, item.terms.repeat)]
    return Panel(
        Group(*(part for part in parts if part)),
        title=Text(visible(_title(name, view, len(takes), item.terms.repeat))),
        title_align="left",
        border_style="red" if view.error is not None else "dim",
    )


def _title(name: str, view: View, taken: int, repeat: int) -> str:
    counted = f" · {taken} of {repeat}" if repeat > 1 and not view.state.final else ""
    state = "" if view.state is State.DONE else f" · {view.state.value}"
    return f"{name}{counted}{state}"


def _facts(takes: Sequence[View], view: View, repeat: int) -> list[str]:
    found = groups([take.text for take in takes if take.state is State.DONE]) if repeat > 1 else ()
    waited = seconds(view.waited) if view.state is State.WAITING else ""
    return [waited if view.metrics.ttft is None else summary(view.metrics), sentence(found)]
