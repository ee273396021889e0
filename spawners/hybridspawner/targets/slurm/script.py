"""The job script: a template rendered from the spawner's `req_*` traits.

Whatever a user chose has already been checked against a strict pattern (request.py); the filters here are the second
lock: a value with white space or a control character cannot become a directive.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

TEMPLATE = (files(__package__) / "script.sh.j2").read_text(encoding="utf-8")
_WORD = re.compile(r"[\x21-\x7e]+", re.ASCII)


def directive(value: Any) -> str:
    """`value` if it is one word of printable ASCII, else ValueError: for the right side of an #SBATCH option."""
    text = str(value)
    if _WORD.fullmatch(text) is None:
        raise ValueError(f"{text[:60]!r} cannot be put into an #SBATCH line: one word is expected")
    return text


def line(value: Any) -> str:
    """`value` if it stays on its line, else ValueError: for a site's own extra options."""
    text = str(value)
    if any(ord(c) < 32 and c != "\t" for c in text):
        raise ValueError(f"{text[:60]!r} cannot be put into an #SBATCH line: it has a line break or control character")
    return text


_jinja = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
_jinja.filters["directive"] = directive
_jinja.filters["line"] = line


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    return _jinja.from_string(template)  # 10 ms: a class that starts at once waits for it


def render(template: str, variables: dict[str, Any]) -> str:
    """The script; ValueError if a value does not fit into a directive."""
    return _compiled(template).render(**variables)
