"""The shape that every notebook has, so that it can be read in class, run at night and judged by a program.

A title; the cell of parameters (literals only); the check (`lesson.check` with every parameter); prose between the
code; results that are asserted; exercises with folded answers; last, `lesson.metrics`. In git: no outputs.
"""

from __future__ import annotations

import ast
import re
from itertools import groupby

import nbformat
from nbformat import NotebookNode

MOST_CODE = 3  # code cells in a row without a word between them
LEAST_WORDS = 300  # of prose, without the exercises
LEAST_ASSERTED = 2
_NAME = re.compile(r"\d\d-[a-z0-9]+(-[a-z0-9]+)*")
_ROOTED = re.compile(r"[\"'(=\s](/(?:home|users|Users|root|tmp|var/tmp)/\S+)")


def findings_of_structure(notebook: NotebookNode, name: str) -> list[str]:
    """All that is wrong with a notebook as it stands in git. name: of its file, without ending."""
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [f"no valid notebook: {str(error).splitlines()[0]}"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    if len(code) < 4 or not prose:
        return ["has no prose, or fewer than four code cells"]
    trees = [parsed(cell.source) for cell in code]
    found = [*_of_file(notebook, name), *_of_git_copy(notebook), *_of_parameters(code[0], trees[0], name)]
    found += _of_check(trees[1], assigned_literals(trees[0]), name)
    if _called(trees[-1], "metrics") is None:
        found.append("the last code cell does not call lesson.metrics(…)")
    found += [f"{cell.id} is no plain Python" for cell, tree in zip(code, trees, strict=True) if tree is None]
    if sum(map(_asserted, trees)) < LEAST_ASSERTED:
        found.append(f"fewer than {LEAST_ASSERTED} results are asserted (assert …, “what is wrong”)")
    return [*found, *_of_prose(notebook, prose), *_of_exercises(prose)]


def _of_file(notebook: NotebookNode, name: str) -> list[str]:
    found = []
    if not _NAME.fullmatch(name):
        found.append(f"{name} is no name like 01-first-session")
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        found.append("older than format 4.5: its cells have no ids")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("its kernel is not python3")
    if notebook.metadata.get("language_info", {}).get("name") != "python":
        found.append("language_info does not name python: papermill wants it")
    wanted = [f"cell-{place:02d}" for place in range(len(notebook.cells))]
    if [cell.get("id") for cell in notebook.cells] != wanted:
        found.append("its cells are not cell-00, cell-01, … in order")
    return found


def _of_git_copy(notebook: NotebookNode) -> list[str]:
    found = []
    full = [cell.id for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    if full:
        found.append(f"outputs or execution counts in git: {', '.join(full)}")
    if "widgets" in notebook.metadata or "papermill" in notebook.metadata:
        found.append("the state of a run in its metadata")
    rooted = (match[1] for cell in notebook.cells if (match := _ROOTED.search(cell.source)) is not None)
    return found + [f"an absolute path in a cell: {path}" for path in rooted]


def _of_parameters(cell: NotebookNode, tree: ast.Module | None, name: str) -> list[str]:
    found = []
    if "parameters" not in cell.metadata.get("tags", []):
        found.append("its first code cell is not tagged `parameters`")
    values = assigned_literals(tree)
    if tree is None or len(values) != len(tree.body) or not all(name.isupper() for name in values):
        found.append("the cell of parameters is not only NAME = literal")
    if not isinstance(values.get("PROFILE"), str):
        found.append("PROFILE is no parameter")
    if values.get("OUT_DIR") != name:
        found.append(f"OUT_DIR is not {name!r}")
    return found


def _of_check(tree: ast.Module | None, parameters: dict[str, object], name: str) -> list[str]:
    made, check = _called(tree, "Lesson"), _called(tree, "check")
    if made is None or check is None:
        return ["its second code cell does not make a Lesson and call lesson.check(…)"]
    found = []
    if not (made.args and isinstance(made.args[0], ast.Constant) and made.args[0].value == name):
        found.append(f"its Lesson is not named {name!r}")
    checked = {keyword.arg for keyword in check.keywords}
    unchecked = [parameter for parameter in parameters if parameter not in checked]
    return found + ([f"not checked: {', '.join(unchecked)}"] if unchecked else [])


def _of_prose(notebook: NotebookNode, prose: list[NotebookNode]) -> list[str]:
    found = []
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        found.append("does not begin with a title")
    runs = [len(list(cells)) for kind, cells in groupby(notebook.cells, lambda cell: cell.cell_type) if kind == "code"]
    if max(runs) > MOST_CODE:
        found.append(f"{max(runs)} code cells in a row without a word between them")
    words = sum(len(re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL).split()) for cell in prose)
    if words < LEAST_WORDS:
        found.append(f"{words} words of prose: nobody learns from that")
    return found


def _of_exercises(prose: list[NotebookNode]) -> list[str]:
    text = "\n".join(cell.source for cell in prose)
    opened, closed = text.count("<details>"), text.count("</details>")
    if not opened:
        return ["no exercise with a folded answer (<details><summary>Answer</summary> … </details>)"]
    return [] if opened == closed == text.count("<summary>") else ["a folded answer is not closed, or has no summary"]


def assigned_literals(tree: ast.Module | None) -> dict[str, object]:
    """NAME = literal, in order; what is no literal is left out."""
    values: dict[str, object] = {}
    for line in tree.body if tree is not None else ():
        if isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(target := line.targets[0], ast.Name):
            try:
                values[target.id] = ast.literal_eval(line.value)
            except ValueError:
                continue
    return values


def parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


def _called(tree: ast.Module | None, name: str) -> ast.Call | None:
    """The first call of a function or method of this name."""
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None)) == name:
            return node
    return None


def _asserted(tree: ast.Module | None) -> int:
    """Checks that say what is wrong."""
    nodes = list(ast.walk(tree)) if tree is not None else []
    return sum(isinstance(node, ast.Raise) or isinstance(node, ast.Assert) and node.msg is not None for node in nodes)
