"""Which conversations are held out of a file: decided by what they ask and the seed, never by where they stand.

- A file in another order gives the same split; rows added later move none of the others to the other side.
- Conversations that ask the same stay together, so nothing held out was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ipytune.data.read import Example

Question = tuple[tuple[str, str], ...]


def question(example: Example) -> Question:
    """All but the last answer, as role and text: what the model is given. White space counts as one blank."""
    return tuple((message.role, " ".join(message.content.split())) for message in example.messages[:-1])


def split(examples: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(trained, held out), each in the file's order; about `fraction` is held out, and at least one of each where the
    examples ask two different things."""
    places = [_place(question(example), seed) for example in examples]
    if fraction == 0 or len(set(places)) < 2:
        return list(examples), []
    lowest, highest = min(places), max(places)
    held_out = [place < highest and (place == lowest or place < fraction) for place in places]
    return (
        [example for example, held in zip(examples, held_out, strict=True) if not held],
        [example for example, held in zip(examples, held_out, strict=True) if held],
    )


def _place(asked: Question, seed: int) -> float:
    """Where in [0, 1) a question falls; evenly spread."""
    digest = hashlib.blake2b(repr((seed, asked)).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
