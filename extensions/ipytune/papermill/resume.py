"""What an old output lets a new run keep. Pure: documents and records in, a plan out.

- A code cell counts as finished only where the old output proves it, and only while every code cell before it has the
  same source: the first that differs, that failed or that was not run is where the run goes on.
- Parameters that only say where and how long to run (`PLACE`) may differ: more walltime is why people resume.
- Variables that could not be kept are made again by the cells that made them, with every cell whose effect that would
  undo, in order. Where it is not known whether a cell is needed, it is run again.
- A cell tagged `once` is never run twice: then the plan is refused, with the reason.
- An output of another notebook is refused.

Cells are numbered by their place among the code cells of the notebook, from 0; banners that papermill or we have put
into an output do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BANNER = "papermill-error-cell-tag"
INJECTED = "injected-parameters"
ONCE = "once"
PLACE = frozenset(
    ("profile", "environment", "target", "runtime", "account", "partition", "reservation", "notebook", "lease")
)
RUN = re.compile("[0-9a-f]{32}")


class CannotResume(Exception):
    """The old output is of no use for this run; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """How many leading code cells are kept, the old cells they are kept from, and why the run goes on there."""

    kept: tuple[Mapping[str, Any], ...]
    total: int
    reason: str
    run: str | None

    @property
    def finished(self) -> bool:
        return len(self.kept) == self.total


@dataclass(frozen=True)
class Known:
    """What a finished run's record says of one variable: the cells that changed it, and why it was left out, if so."""

    changed: tuple[int, ...] = ()
    left: str | None = None  # the reason
    handle: bool = False  # a lock, a process: made again it is as good as it was, whatever was done with it since


@dataclass(frozen=True)
class Rebuild:
    """Cells to run again before the run goes on, the variables not to take from the record, and for whom."""

    cells: tuple[int, ...] = ()
    stale: frozenset[str] = frozenset()
    why: Mapping[str, str] = field(default_factory=dict)


def code_cells(notebook: Mapping[str, Any]) -> list[Any]:
    """The code cells that a run counts."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and BANNER not in tags(cell)]


def tags(cell: Mapping[str, Any]) -> list[str]:
    return list(cell.get("metadata", {}).get("tags", []))


def plan(notebook: Mapping[str, Any], old: Mapping[str, Any]) -> Plan:
    """What of `old` stays when `notebook`, with its parameters injected, is to be run. Raises CannotResume."""
    new_cells, old_cells = code_cells(notebook), code_cells(old)
    _same_notebook(new_cells, old_cells)
    ours = _run(old)
    kept: list[Mapping[str, Any]] = []
    reason = "all cells were finished"
    for number, cell in enumerate(new_cells):
        if number == len(old_cells):
            reason = f"cell {number + 1} is new"
            break
        before = old_cells[number]
        if not _same(cell, before):
            parameters = INJECTED in tags(cell) or INJECTED in tags(before)
            reason = "the parameters changed" if parameters else f"cell {number + 1} was changed"
            break
        if not _finished(before, old_cells[number + 1 :], ours is not None):
            failed = _status(before).get("exception") is True
            reason = f"cell {number + 1} {'failed' if failed else 'was not finished'}"
            break
        kept.append(before)
    return Plan(tuple(kept), len(new_cells), reason, ours)


def rebuild(sources: Sequence[str], kept: int, known: Mapping[str, Known], once: Collection[int] = ()) -> Rebuild:
    """Which of the `kept` finished cells must run again, so that the cells after them find what they need.

    `known` is the record of the variables, which may be of a later moment than the last kept cell. Raises CannotResume.
    """
    names = [_Names.of(source) for source in sources]
    finished, rest = names[:kept], names[kept:]
    wanted = {name for cell in rest for name in cell.mentioned} | {name for cell in finished for name in cell.inner}
    missing = {
        name
        for name, what in known.items()
        if (what.left is not None or _last(what) >= kept) and min(what.changed, default=kept) < kept
    }
    lost = {name: _touching(name, known[name], finished, kept) for name in missing}
    tainted = missing & wanted
    why = {name: known[name].left or "a later cell changed it" for name in tainted}
    again: set[int] = set()
    while True:
        more = {number for name in tainted for number in lost.get(name, _changed(known.get(name), kept))}
        grown = set(tainted)
        for number in more:
            for name, what in known.items():
                if number in what.changed and name not in missing:
                    grown.add(name)  # run again, the cell changes it again: so must all that changed it
            for name in finished[number].mentioned:
                if name in missing or _last(known.get(name)) > number:
                    grown.add(name)
        if more == again and grown == tainted:
            break
        again, tainted = more, grown
    for number in sorted(again & set(once)):
        name = next((name for name in why if number in lost.get(name, ())), next(iter(why)))
        raise CannotResume(
            f"The variable {name} could not be kept ({why[name]}), and cell {number + 1}, which it takes to make it "
            f"again, is tagged `{ONCE}`. Run the notebook from its start, without --resume."
        )
    later = {name for name, what in known.items() if _last(what) >= kept}
    return Rebuild(tuple(sorted(again)), frozenset(missing | later), why)


def parameters_of(source: str) -> dict[str, str] | None:
    """The assignments of an injected parameters cell but for those of `PLACE`; None where it holds anything else."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return None
    found: dict[str, str] = {}
    for statement in body:
        if not isinstance(statement, ast.Assign) or not all(isinstance(name, ast.Name) for name in statement.targets):
            return None
        found |= {name.id: ast.dump(statement.value) for name in statement.targets if isinstance(name, ast.Name)}
    return {name: value for name, value in found.items() if name not in PLACE}


@dataclass(frozen=True)
class _Names:
    """Names that a cell binds, that it mentions, and that it mentions inside of functions, which run later."""

    bound: frozenset[str]
    mentioned: frozenset[str]
    inner: frozenset[str]

    @classmethod
    def of(cls, source: str) -> _Names:
        plain, words = _without_magics(source)
        try:
            tree = ast.parse(plain)
        except (SyntaxError, ValueError):
            every = frozenset(_WORD.findall(source))
            return cls(every, every, every)
        bound, mentioned, inner = set(words), set(words), set(words)
        _walk(tree, False, bound, mentioned, inner)
        return cls(frozenset(bound), frozenset(mentioned), frozenset(inner))


_WORD = re.compile(r"[^\W\d]\w*")
_MAGIC = re.compile(r"^([ \t]*)[%!?].*$|^([ \t]*).*\?[ \t]*$", re.MULTILINE)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _without_magics(source: str) -> tuple[str, list[str]]:
    """The cell's Python, and the words of its magics, of which nobody knows what they bind."""
    words: list[str] = []
    if source.lstrip().startswith("%%"):
        first, _, source = source.lstrip().partition("\n")
        words += _WORD.findall(first)

    def replaced(match: re.Match[str]) -> str:
        words.extend(_WORD.findall(match[0]))
        return f"{match[1] or match[2] or ''}pass"

    return _MAGIC.sub(replaced, source), words


def _walk(node: ast.AST, inside: bool, bound: set[str], mentioned: set[str], inner: set[str]) -> None:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not inside:
        bound.add(node.name)
    elif isinstance(node, ast.Name):
        mentioned.add(node.id)
        if inside:
            inner.add(node.id)
        elif not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
    elif isinstance(node, (ast.Import, ast.ImportFrom)) and not inside:
        bound.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Global):
        bound.update(node.names)
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name and not inside:
        bound.add(node.name)
    inside = inside or isinstance(node, _FUNCTIONS)
    for child in ast.iter_child_nodes(node):
        _walk(child, inside, bound, mentioned, inner)


def _touching(name: str, what: Known, finished: Sequence[_Names], kept: int) -> set[int]:
    """The finished cells that made a variable what it was: by the record, or, where no value could be compared, by
    their text."""
    if what.left is None:
        return _changed(what, kept)
    return {min(what.changed)} | {
        number
        for number, cell in enumerate(finished)
        if name in cell.bound or (not what.handle and name in cell.mentioned)
    }


def _changed(what: Known | None, kept: int) -> set[int]:
    return {number for number in what.changed if number < kept} if what else set()


def _last(what: Known | None) -> int:
    return max(what.changed, default=-1) if what else -1


def _same_notebook(new: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]) -> None:
    sources = [
        {cell["source"].strip() for cell in cells if cell["source"].strip() and INJECTED not in tags(cell)}
        for cells in (new, old)
    ]
    if all(sources) and not sources[0] & sources[1]:
        raise CannotResume(
            "The old output is of another notebook: they have no cell in common. Name another output file, or run "
            "without --resume to write this one anew."
        )


def _same(cell: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    if INJECTED in tags(cell) and INJECTED in tags(before):
        given, had = parameters_of(cell["source"]), parameters_of(before["source"])
        return cell["source"] == before["source"] or (given is not None and given == had)
    return cell["source"] == before["source"] and (INJECTED in tags(cell)) == (INJECTED in tags(before))


def _finished(cell: Mapping[str, Any], after: Sequence[Mapping[str, Any]], ours: bool) -> bool:
    """Whether the output proves that the cell came to its end.

    papermill alone also writes `completed` beside the cell in which a kernel died and beside all after it: there the
    last cell that was begun counts as finished only where all cells are.
    """
    status = _status(cell)
    if status.get("status") != "completed" or status.get("exception") or not status.get("end_time"):
        return False
    if not cell["source"].strip():
        return True
    if cell.get("execution_count") is None:
        return False
    begun = [_status(later).get("start_time") for later in after]
    return ours or not begun or any(begun)


def _status(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    found = cell.get("metadata", {}).get("papermill", {})
    return found if isinstance(found, Mapping) else {}


def _run(old: Mapping[str, Any]) -> str | None:
    run = old.get("metadata", {}).get("ipytune", {}).get("run")
    return run if isinstance(run, str) and RUN.fullmatch(run) else None
