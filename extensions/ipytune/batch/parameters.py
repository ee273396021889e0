"""What a notebook takes: the names and defaults of its `parameters` cell, and values checked against them.

Pure. A value is refused here, before anything waits in a queue, when the notebook has no such name or when it is of
another kind than the default. What is allowed beyond that, only the notebook's own check knows.
"""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from nbformat import NotebookNode

TAG = "parameters"


class ParameterError(ValueError):
    """A name or a value that the notebook does not take; says what it takes."""


class _Unknown:
    """The default of a parameter that is no plain literal: any value may take its place."""

    def __repr__(self) -> str:
        return "computed"


UNKNOWN = _Unknown()


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: 2e-4 is a number, and a date stays the text that it is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either of the two loaders, YAML's own and ours, would take for something else."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def from_yaml(text: str) -> Any:
    """Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader


def as_yaml(values: Mapping[str, Any]) -> str:
    """For papermill, which reads it as YAML 1.1: JSON's 1e-05 would be a text there. Only ASCII: its loader takes some
    other characters for ends of lines."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False) if values else "{}\n"


def declared(notebook: NotebookNode) -> dict[str, Any]:
    """Names and defaults of the first cell that is tagged `parameters`; empty when there is none."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and TAG in cell.metadata.get("tags", []):
            return _assigned(cell.source)
    return {}


def _assigned(source: str) -> dict[str, Any]:
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ParameterError(
            f"The notebook's parameters cell is not Python: {error.msg}, line {error.lineno}."
        ) from error
    found: dict[str, Any] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name):
                found[target.id] = _literal(value)
    return found


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return UNKNOWN


def typed(text: str, default: Any = UNKNOWN) -> Any:
    """A value from a command line or a table, as papermill types those of -p: True, False, None, whole number, number,
    else text. Beyond that: `[...]` and `{...}` are YAML, and what stands for a text stays as it is written.

    >>> typed("8"), typed("2e-4"), typed("[q, v]"), typed("007", default="abc")
    (8, 0.0002, ['q', 'v'], '007')
    """
    if text == "None":
        return None
    if isinstance(default, str):
        return text
    if isinstance(default, bool) and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if text in {"True", "False"}:
        return text == "True"
    if text.lstrip()[:1] in {"[", "{"}:
        try:
            return from_yaml(text)
        except yaml.YAMLError as error:
            raise ParameterError(f"{text[:60]!r} is no list or mapping: quote it, and close its brackets.") from error
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def known(name: str, defaults: Mapping[str, Any]) -> None:
    """Raises ParameterError when the notebook has no parameter of this name."""
    if name in defaults:
        return
    if not defaults:
        raise ParameterError(
            f"{name}: the notebook takes no parameters. Tag the cell that sets its defaults with `{TAG}`."
        )
    near = difflib.get_close_matches(name.upper(), [other.upper() for other in defaults], n=1)
    meant = next((other for other in defaults if near and other.upper() == near[0]), None)
    hint = f" Did you mean {meant}?" if meant else ""
    raise ParameterError(f"{name}: the notebook has no such parameter.{hint} It has {', '.join(defaults)}.")


def check(name: str, value: Any, defaults: Mapping[str, Any]) -> Any:
    """The value as the notebook gets it: a whole number where the default is a number with a point becomes one too.

    None is always taken, as `not set`; a default of None takes any value. Raises ParameterError.
    """
    known(name, defaults)
    if not _plain(value):
        raise ParameterError(f"{name} is {value!r}: texts, finite numbers, true, false, null, and lists of them.")
    default = defaults[name]
    if value is None or default is None or default is UNKNOWN:
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = next(kind for kind in _KINDS if isinstance(default, kind))
    if isinstance(value, expected) and (expected is bool or not isinstance(value, bool)):
        return value
    raise ParameterError(
        f"{name} is {_short(value)}: {_KINDS[expected]} is expected, as its default {_short(default)}."
    )


# bool before int: True is an int as well.
_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    (list, tuple): "a list",
    dict: "a mapping",
    object: "something else",
}


def _plain(value: Any) -> bool:
    """Whether it means the same after a way through YAML or JSON."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, str):
        return not any("\ud800" <= c <= "\udfff" for c in value)  # half a pair, from bytes that are no UTF-8
    return value is None or isinstance(value, (bool, int))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
