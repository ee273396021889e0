"""Slurm's lists of node names: `nid[000001-000003,000007],login1`."""

from __future__ import annotations

import itertools
import re

_MOST = 100_000
_RANGE = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


def expand(text: str) -> list[str]:
    """The names in a hostlist, in its order; ValueError if it is not one, or of more than 100,000 names."""
    names: list[str] = []
    for word in _words(text):
        parts = re.split(r"\[([^\]]*)\]", word)
        if any(c in part for part in parts for c in "[]"):
            raise ValueError(f"{text[:80]!r} is not a list of nodes")
        choices = [[part] if n % 2 == 0 else _numbers(part) for n, part in enumerate(parts)]
        for choice in itertools.product(*choices):
            names.append("".join(choice))
            if len(names) > _MOST:
                raise ValueError(f"{text[:80]!r} names more than {_MOST} nodes")
    return names


def first(text: str) -> str:
    """The first name in a hostlist, where the batch step runs; "" if there is none."""
    try:
        return next(iter(expand(text)), "")
    except ValueError:
        return ""


def _words(text: str) -> list[str]:
    """`text` at its commas, but for those in brackets."""
    return [word for word in re.split(r",(?![^\[]*\])", text.strip()) if word not in ("", "(null)", "None assigned")]


def _numbers(ranges: str) -> list[str]:
    numbers: list[str] = []
    for item in ranges.split(","):
        match = _RANGE.fullmatch(item.strip())
        if match is None:
            raise ValueError(f"{ranges[:80]!r} is not a range of nodes")
        low, high = match[1], match[2] or match[1]
        if int(high) - int(low) > _MOST:
            raise ValueError(f"{ranges[:80]!r} has more than {_MOST} nodes")
        numbers += [str(n).zfill(len(low)) for n in range(int(low), int(high) + 1)]
    return numbers
