"""Which names of a running notebook are its parameters: those that its cell sets, and those that papermill injected.

IPython keeps the source of every cell that ran. So a name that was injected is told from a variable of a later cell,
also when the check is run once more at the end of a session.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

_INJECTED = "# Parameters"  # the first line of the cell that papermill inserts
_OF_IPYTHON = ("In", "Out", "exit", "quit", "get_ipython", "open")
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


def parameters(namespace: Mapping[str, object], declared: Iterable[str]) -> dict[str, object]:
    """The parameters' values. Without a history that has them (a script, a kernel that was handed its variables):
    every plain value that the namespace holds, in IPython those in capitals."""
    history = namespace.get("In")
    in_ipython = isinstance(history, list)
    cells = [source for source in history if isinstance(source, str)] if isinstance(history, list) else []
    names = assigned(cells, frozenset(declared))
    if not names:
        plain = (name for name, value in namespace.items() if _could_be_one(name, value))
        names = [name for name in plain if name.isupper() or not in_ipython]
    return {name: namespace[name] for name in names if name in namespace}


def assigned(cells: Iterable[str], declared: frozenset[str]) -> list[str]:
    """Names that are set in the cells of parameters: those that papermill injected, and those that set nothing but
    literals and a declared name among them."""
    names: dict[str, None] = {}
    for source in cells:
        found = _literals(source)
        if source.lstrip().startswith(_INJECTED) or declared.intersection(found):
            names.update(dict.fromkeys(found))
    return list(names)


def _literals(source: str) -> list[str]:
    """Names that a cell of assignments sets; none for a cell that does anything else."""
    try:
        lines = ast.parse(source).body
    except SyntaxError:  # a magic: no cell of parameters
        return []
    names: list[str] = []
    for line in lines:
        if isinstance(line, ast.Assign):
            names += [target.id for target in line.targets if isinstance(target, ast.Name)]
        elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            names.append(line.target.id)
        elif not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)):
            return []
    return names


def _could_be_one(name: str, value: object) -> bool:
    return not name.startswith("_") and name not in _OF_IPYTHON and isinstance(value, _PLAIN)
