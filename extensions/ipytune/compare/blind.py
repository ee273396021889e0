"""Blind comparison: which endpoint stands where is drawn by lot, and what is shown does not tell.

Hidden are the names, and what would give them away: the model, the URL, the server's words in an error, the speed, the
token counts. What the answers themselves tell, and how quickly they are seen to come, stays. Pure but for the lot.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ipytune.endpoints.errors import EndpointError
from ipytune.endpoints.exchange import View
from ipytune.endpoints.metrics import Metrics
from ipytune.endpoints.records import Endpoint

LABELS = "ABCD"
HIDDEN = EndpointError(
    "This answer failed.", "What the server said would tell which one it is.", "It is shown with the names."
)


@dataclass
class Sitting:
    """The order of the columns in one conversation: place on the screen -> number of the endpoint."""

    order: tuple[int, ...]
    revealed: bool


class Lots:
    """Draws the orders. seed: the same seed draws the same orders; None draws one that nobody knows."""

    def __init__(self, seed: int | None = None) -> None:
        self._seed = secrets.randbits(64) if seed is None else seed
        self._drawn = 0

    def sitting(self, count: int, blind: bool) -> Sitting:
        if not blind:
            return Sitting(tuple(range(count)), revealed=True)
        self._drawn += 1
        drawn = random.Random(f"{self._seed}/{self._drawn}").sample(range(count), count)
        return Sitting(tuple(drawn), revealed=False)


def seen(takes: Sequence[Sequence[View]], sitting: Sitting) -> tuple[tuple[View, ...], ...]:
    """The columns as they may be shown: in their order, and without what tells, unless the names are shown."""
    if sitting.revealed:
        return tuple(tuple(takes[column]) for column in sitting.order)
    return tuple(
        tuple(masked(take, label) for take in takes[column])
        for label, column in zip(LABELS, sitting.order)  # noqa: B905  (more labels than columns)
    )


def masked(view: View, label: str) -> View:
    """An answer of which one sees the text, and not whose it is."""
    return replace(
        view,
        endpoint=unnamed(label),
        metrics=Metrics(),
        error=None if view.error is None else HIDDEN,
        logprobs=(),  # their tokens would tell the tokenizer
    )


def unnamed(label: str) -> Endpoint:
    return Endpoint(name=label, base_url="http://hidden.invalid", model=label)
