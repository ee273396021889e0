"""Which conversations make a step, and how they share rows: no padding, and no token sees another conversation.

Both are pure functions of the seed and the step, so a continued run takes up exactly where it stopped.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ipytune.data.template import Tokens


@dataclass(frozen=True)
class Row:
    """Conversations one after the other: T tokens, positions that restart at each, and the lengths (sum T)."""

    ids: tuple[int, ...]
    learned: tuple[bool, ...]
    lengths: tuple[int, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        return tuple(position for length in self.lengths for position in range(length))

    @property
    def predictions(self) -> list[int]:
        """Indices t of tokens from which a learned token t+1 of the same conversation is predicted."""
        firsts = set(_starts(self.lengths))
        return [t - 1 for t, learned in enumerate(self.learned) if learned and t not in firsts]


def batch(step: int, size: int, batch_size: int, seed: int) -> list[int]:
    """Indices of the conversations of optimiser step `step` (from 0).

    Conversations come in an endless stream of shuffled passes; every pass holds each of the `size` exactly once.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    orders = {epoch: _shuffled(size, epoch, seed) for epoch in {place // size for place in places}}
    return [orders[place // size][place % size] for place in places]


def pack(examples: Sequence[Tokens], row_tokens: int) -> list[Row]:
    """Rows of at most row_tokens tokens: longest first, each into the fullest row that still holds it.

    Raises ValueError for a conversation that is longer than a row.
    """
    rows: list[list[Tokens]] = []
    filled: list[int] = []
    for tokens in sorted(examples, key=len, reverse=True):
        if len(tokens) > row_tokens:
            raise ValueError(f"a conversation of {len(tokens)} tokens fits no row of {row_tokens}; raise row_tokens.")
        fitting = [i for i, used in enumerate(filled) if used + len(tokens) <= row_tokens]
        if not fitting:
            rows.append([])
            filled.append(0)
        best = max(fitting, key=lambda i: filled[i]) if fitting else len(rows) - 1
        rows[best].append(tokens)
        filled[best] += len(tokens)
    return [row_of(row) for row in rows]


def row_of(examples: Sequence[Tokens]) -> Row:
    return Row(
        ids=tuple(token for tokens in examples for token in tokens.ids),
        learned=tuple(learned for tokens in examples for learned in tokens.learned),
        lengths=tuple(map(len, examples)),
    )


def _starts(lengths: Sequence[int]) -> Iterator[int]:
    start = 0
    for length in lengths:
        yield start
        start += length


def _shuffled(size: int, epoch: int, seed: int) -> list[int]:
    order = list(range(size))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order
