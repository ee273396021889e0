"""Text from a server or a model, made safe to show: it must not steer a terminal, nor read otherwise than it is. Pure.

Escape sequences move a cursor or rewrite a title; bidirectional controls make a reader see another text than the one
that is there (CVE-2021-42574, "Trojan Source"). Both are shown as what they are instead: a control character as its
picture (ESC as ␛), a bidirectional control by its name in the standard (⟨U+202E⟩).
"""

from __future__ import annotations

import re

# Line feed and tabulator are the two controls that a text needs. Surrogates: half a character that no file can hold.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """`text` with every control character but line feed and tabulator replaced by something to be seen.

    >>> visible("a\\x1b[31mb\\u202ec\\r\\n")
    'a␛[31mb⟨U+202E⟩c\\n'
    """
    return _HARMFUL.sub(_named, text.replace("\r\n", "\n"))


def one_line(text: str, longest: int = 100) -> str:
    """The beginning of `text` on one line, for a title or a list.

    >>> one_line("a\\nb  c", 4)
    'a b…'
    """
    words = " ".join(visible(text[: longest * 4]).split())
    return words if len(words) <= longest else f"{words[: longest - 1].rstrip()}…"


def _named(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
