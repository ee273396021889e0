"""How alike the answers are that one model gives to one prompt: equal ones grouped, the most frequent first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Answers that are equal but for white space at their ends. `takes` are their places, counted from 0."""

    text: str
    takes: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.takes)


def groups(texts: Sequence[str]) -> tuple[Group, ...]:
    """
    >>> [(group.count, group.text) for group in groups(["yes", "no", "no "])]
    [(2, 'no'), (1, 'yes')]
    """
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text.strip(), []).append(place)
    # sorted() is stable: of two groups of one size the one that came first stays first.
    ordered = sorted(places.items(), key=lambda item: -len(item[1]))
    return tuple(Group(text, tuple(found)) for text, found in ordered)


def sentence(found: Sequence[Group]) -> str:
    """
    >>> sentence(groups(["a", "b", "a"])), sentence(groups(["a", "a"]))
    ('2 different answers in 3; the most frequent 2 times', 'all 2 answers are the same')
    """
    asked = sum(group.count for group in found)
    if asked < 2:
        return ""
    if len(found) == 1:
        return f"all {asked} answers are the same"
    if found[0].count == 1:
        return f"all {asked} answers differ"
    return f"{len(found)} different answers in {asked}; the most frequent {found[0].count} times"
