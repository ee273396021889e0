"""A comparison as a notebook cell: Python that asks the same of the same endpoints.

Values reach the code as literals only, by repr, and what has no literal is refused: a prompt with quotes, or with code
in it, stays a prompt.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipytune.compare.dialogue import Terms
from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.records import Endpoint

if TYPE_CHECKING:
    from ipytune.compare.comparison import Comparison


def as_cell(comparison: Comparison) -> str:
    """The source. Raises BadRequest for an option that has no literal (a function, an object)."""
    rounds = comparison.rounds
    terms = rounds[0].terms if rounds else Terms(comparison.system, comparison.parameters.options(), comparison.repeat)
    lines = [
        "from IPython.display import display",
        "from ipytune.endpoints import Endpoint",
        "from ipytune.widgets import ComparePanel",
        "",
        "panel = ComparePanel(",
        "    [",
        *(f"        {_endpoint(endpoint)}," for endpoint in comparison.endpoints),
        "    ],",
        *(f"    {name}={literal(value)}," for name, value in _settings(comparison, terms).items()),
        ")",
        "display(panel)",
    ]
    for item in rounds:
        lines += _changed(terms, item.terms)
        if item.fresh and item is not rounds[0]:
            lines.append("panel.new_conversation()")
        lines.append(f"panel.ask({literal(item.prompt)})")
        terms = item.terms
    # The value of a cell's last line is shown: the answers are in the panel already.
    if rounds:
        lines[-1] += ";"
    return "\n".join(lines) + "\n"


def literal(value: Any) -> str:
    """`value` as Python source that gives it back. Raises BadRequest where there is none."""
    source = repr(value)
    try:
        same = ast.literal_eval(source) == value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        same = False
    if not same:
        raise BadRequest(
            "This comparison cannot be written as a cell.",
            f"One of its values is a {type(value).__name__} that has no literal in Python.",
            "Export it as JSON or HTML.",
        )
    # A surrogate, half a character, can be in a string but in no file.
    return source.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _endpoint(endpoint: Endpoint) -> str:
    fields = endpoint.model_dump(exclude_none=True)
    words = [f"{name}={literal(str(value) if isinstance(value, Path) else value)}" for name, value in fields.items()]
    return f"Endpoint({', '.join(words)})"


def _settings(comparison: Comparison, terms: Terms) -> dict[str, Any]:
    settings: dict[str, Any] = {"system": terms.system} if terms.system else {}
    if comparison.blind:
        settings["blind"] = True
    if not comparison.remember:
        settings["remember"] = False
    if terms.repeat != 1:
        settings["repeat"] = terms.repeat
    for name in terms.options:
        if not name.isidentifier():
            raise BadRequest("This comparison cannot be written as a cell.", f"{name!r} is no name in Python.")
    return {**settings, **terms.options}


def _changed(before: Terms, after: Terms) -> list[str]:
    """What was set differently for this round."""
    lines = []
    if after.system != before.system:
        lines.append(f"panel.set('system', {literal(after.system)})")
    if after.repeat != before.repeat:
        lines.append(f"panel.set('repeat', {literal(after.repeat)})")
    for name in sorted({*before.options, *after.options}):
        value = after.options.get(name)
        if value != before.options.get(name):
            lines.append(f"panel.set({literal(name)}, {literal(value)})")
    return lines
