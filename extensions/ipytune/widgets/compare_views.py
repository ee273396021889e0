"""What the comparison panel shows, as plain data and as static HTML. Pure: a picture of a `Comparison` as it stands.

Columns are seen through `Comparison.seen` and `Comparison.names` alone, so what a blind comparison hides is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ipytune.compare.ballot import sentences
from ipytune.compare.blind import LABELS
from ipytune.compare.comparison import Comparison
from ipytune.compare.dialogue import Round
from ipytune.compare.differences import Part, difference, share
from ipytune.endpoints.untrusted import one_line, visible
from ipytune.widgets import picture
from ipytune.widgets.answers import bounded, shown, static_take, text_line

_SHARED = "One server wrote these answers at the same time: each would be quicker alone."
_FIXED = "With a fixed seed, repeated answers differ only where the server does not keep to it."
_COMPARED = 40_000  # characters of two answers; beyond, their difference is too much to read in a panel

_difference = lru_cache(maxsize=8)(difference)  # the panel and its static picture show the same ones


def columns(comparison: Comparison, item: Round) -> list[dict[str, Any]]:
    return [shown(takes, item.terms.repeat) for takes in comparison.seen(item)]


def empty_columns(comparison: Comparison) -> list[dict[str, Any]]:
    """Before anything was asked."""
    models = ["" if comparison.blind else endpoint.model for endpoint in comparison.endpoints]
    return [
        {"endpoint": visible(name), "model": visible(model), "text": "", "reasoning": "", "state": "idle"}
        for name, model in zip(comparison.names(), models, strict=True)
    ]


def asked(comparison: Comparison, item: Round) -> dict[str, Any]:
    return {
        "number": item.number,
        "prompt": visible(item.prompt),
        "fresh": item.fresh,
        "vote": comparison.shown_vote(item),
    }


def earlier_rounds(comparison: Comparison, rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Their texts share one budget, so that the state stays bounded."""
    rows = [columns(comparison, item) for item in rounds]
    kept = iter(bounded([answer for row in rows for answer in row]))
    return [
        {**asked(comparison, item), "columns": [next(kept) for _ in row]}
        for item, row in zip(rounds, rows, strict=True)
    ]


def differences(comparison: Comparison, item: Round) -> list[tuple[str, tuple[Part, ...]]]:
    """The first column's answer beside each other one's, with a title; where there are two to compare."""
    names, seen = comparison.names(item), comparison.seen(item)
    first = seen[0][0].text
    found = []
    for name, takes in list(zip(names, seen, strict=True))[1:]:
        other = takes[0].text
        if first and other and len(first) + len(other) <= _COMPARED:
            parts = _difference(first, other)
            same = "equal" if first == other else f"{share(parts):.0%} in common"
            found.append((visible(f"From {names[0]} to {name}: {same}"), parts))
    return found


def ballot_paper(comparison: Comparison, item: Round | None) -> list[list[str]]:
    """What can be voted, as [value, words]; nothing while answers come, or once a blind vote was given."""
    vote = comparison.vote_of(item) if item is not None else None
    if item is None or not item.over or (vote is not None and vote.blind):
        return []
    names = [visible(name) for name in comparison.names(item)]
    word, none = ("better", "Both bad") if len(names) == 2 else ("best", "All bad")
    best = [[label, f"{name} is {word}"] for label, name in zip(LABELS, names)]  # noqa: B905  (more labels)
    return [*best, ["tie", "Tie"], ["bad", none]]


def note(comparison: Comparison, item: Round) -> str:
    """What a reader must know to read the numbers rightly."""
    roots = {endpoint.api_root for endpoint in comparison.endpoints}
    notes = [_SHARED] if len(roots) < len(comparison.endpoints) else []
    if item.terms.repeat > 1 and "seed" in item.terms.options:
        notes.append(_FIXED)
    return " ".join(notes)


def static_html(comparison: Comparison, newest: Round | None, earlier: Sequence[Round], prompt: str) -> str:
    parts = [picture.folded(one_line(item.prompt), _static(comparison, item)) for item in earlier]
    parts.append(picture.prompt(newest.prompt if newest is not None else prompt))
    if newest is not None:
        parts.append(_static(comparison, newest))
        if newest.over:
            parts += [picture.word_difference(title, found) for title, found in differences(comparison, newest)]
    parts.append(picture.lines(sentences(comparison.tally())))
    return picture.frame("Side by side", f"{len(comparison.endpoints)} answers", *parts)


def static_text(comparison: Comparison, newest: Round | None, prompt: str) -> str:
    if newest is None:
        return "\n".join(["ComparePanel", visible(f"> {prompt}"), *map(visible, comparison.names())])
    said = [text_line(takes[0]) for takes in comparison.seen(newest)]
    return "\n".join(["ComparePanel", visible(f"> {newest.prompt}"), *said])


def _static(comparison: Comparison, item: Round) -> str:
    return picture.columns([static_take(takes) for takes in comparison.seen(item)])
