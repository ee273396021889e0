"""Text from a server or a model, made safe to show: it must not steer a terminal, nor read otherwise than it is."""

from __future__ import annotations

import unicodedata

# They reorder what stands around them, so that a name or a command reads as another.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def harmless(text: str) -> str:
    """`text` with control characters, reordering marks and half characters replaced; newlines and tabs stay.

    >>> harmless("a\\x1b[31mb\\tc\\n") == "a\N{REPLACEMENT CHARACTER}[31mb\\tc\\n"
    True
    """
    return "".join("\N{REPLACEMENT CHARACTER}" if _dangerous(letter) else letter for letter in text)


def on_one_line(text: str, longest: int) -> str:
    """`text` harmless, its white space collapsed, and cut at `longest` characters.

    >>> on_one_line("a\\n  b  c", 4)
    'a b …'
    """
    text = harmless(" ".join(text.split()))
    return text if len(text) <= longest else text[:longest] + "…"


def _dangerous(letter: str) -> bool:
    if letter in "\n\t":
        return False
    return letter in _REORDERING or unicodedata.category(letter) in ("Cc", "Cs")
