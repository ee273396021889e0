"""Two answers word by word: what both have, what only the first has, what only the second has. Pure.

The comparison is difflib's over words with the space that follows them. Its time grows with the pairs of equal words,
in texts that repeat themselves (as models do) with more than that. So what both begin and end with is taken off first,
and where there is too much left whole lines are compared, and words only inside those that differ.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["same", "del", "ins"]

_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")
_MOST_PAIRS = 100_000  # of equal words; ordinary prose of 2,000 words has half of that, and takes 0.05 s
_MOST_WORDS = 2_000  # where the same words come in another order, 4,000 took 14 s


@dataclass(frozen=True)
class Part:
    """A stretch of text: in both, only in the first ("del"), only in the second ("ins")."""

    kind: Kind
    text: str


def difference(first: str, second: str) -> tuple[Part, ...]:
    """The parts in reading order. Those of "same" and "del" make up `first`, those of "same" and "ins" `second`.

    >>> [(part.kind, part.text) for part in difference("two small nodes", "two nodes")]
    [('same', 'two '), ('del', 'small '), ('same', 'nodes')]
    """
    left, right = _WORD.findall(first), _WORD.findall(second)
    start = _common(left, right)
    end = _common(left[start:][::-1], right[start:][::-1])
    inner_left, inner_right = left[start : len(left) - end], right[start : len(right) - end]
    inner = _words_of(inner_left, inner_right) or _lines_of("".join(inner_left), "".join(inner_right))
    return _merged([Part("same", "".join(left[:start])), *inner, Part("same", "".join(left[len(left) - end :]))])


def share(parts: Sequence[Part]) -> float:
    """How much of the two texts is in both, 0 to 1, by characters. Two empty texts are equal."""
    same = 2 * sum(len(part.text) for part in parts if part.kind == "same")
    whole = same + sum(len(part.text) for part in parts if part.kind != "same")
    return same / whole if whole else 1.0


def _words_of(left: Sequence[str], right: Sequence[str]) -> list[Part]:
    """Compared word by word; nothing where that would take too long."""
    if max(len(left), len(right)) > _MOST_WORDS or _pairs(left, right) > _MOST_PAIRS:
        return []
    parts = []
    for tag, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            parts.append(Part("same", "".join(left[a:b])))
        else:
            parts += [Part("del", "".join(left[a:b])), Part("ins", "".join(right[c:d]))]
    return parts


def _lines_of(first: str, second: str) -> list[Part]:
    """Compared line by line, and word by word in lines that differ; as a whole where even that would take too long."""
    whole = [Part("del", first), Part("ins", second)]
    left, right = first.splitlines(keepends=True), second.splitlines(keepends=True)
    if _pairs(left, right) > _MOST_PAIRS:
        return whole
    parts = []
    for tag, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        before, after = "".join(left[a:b]), "".join(right[c:d])
        if tag == "equal":
            parts.append(Part("same", before))
        else:
            inside = _words_of(_WORD.findall(before), _WORD.findall(after))
            parts += inside or [Part("del", before), Part("ins", after)]
    return parts


def _pairs(left: Sequence[str], right: Sequence[str]) -> int:
    """How many items of one are equal to how many of the other."""
    counts = Counter(right)
    return sum(counts[item] for item in left)


def _merged(parts: Sequence[Part]) -> tuple[Part, ...]:
    merged: list[Part] = []
    for part in parts:
        if not part.text:
            continue
        if merged and merged[-1].kind == part.kind:
            merged[-1] = Part(part.kind, merged[-1].text + part.text)
        else:
            merged.append(part)
    return tuple(merged)


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """The number of items with which both begin."""
    count = 0
    for a, b in zip(left, right):  # noqa: B905  (one may be shorter)
        if a != b:
            break
        count += 1
    return count
