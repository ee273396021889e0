"""Every notebook in git has the shape, and the lint of the shape finds what breaks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.notebooks.expectations import expectations_of
from tests.notebooks.structure import findings_of_structure

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
CHECK = """\
lesson = Lesson("07-example", globals())
lesson.check(PROFILE=choice("smoke"), SEED=integer(), OUT_DIR=folder())
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_the_shape_and_states_what_is_expected(path: Path) -> None:
    assert findings_of_structure(nbformat.read(path, as_version=4), path.stem) == []
    expected = expectations_of(path)
    assert expected.seconds <= 150, "smoke is for every change"


def example() -> NotebookNode:
    words = "# Example\n" + "word " * 300 + "<details><summary>Answer</summary>\n\n42\n\n</details>"
    sources = [
        words,
        'PROFILE = "smoke"\nSEED = -1\nOUT_DIR = "07-example"',
        CHECK,
        'assert SEED, "no seed"\nassert PROFILE, "no profile"',
        "lesson.metrics(seed=SEED)",
    ]
    cells = [nbformat.v4.new_markdown_cell(sources[0])]
    cells += [nbformat.v4.new_code_cell(source) for source in sources[1:3]]
    cells += [nbformat.v4.new_markdown_cell("Between.")]
    cells += [nbformat.v4.new_code_cell(source) for source in sources[3:]]
    for place, cell in enumerate(cells):
        cell.id = f"cell-{place:02d}"
    cells[1].metadata["tags"] = ["parameters"]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.metadata["language_info"] = {"name": "python"}
    return made


def replaced(place: int, old: str, new: str) -> Callable[[NotebookNode], None]:
    def breaks(notebook: NotebookNode) -> None:
        assert old in notebook.cells[place].source
        notebook.cells[place].source = notebook.cells[place].source.replace(old, new)

    return breaks


def test_a_notebook_of_that_shape_has_no_findings() -> None:
    assert findings_of_structure(example(), "07-example") == []


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (replaced(1, "SEED = -1", "SEED = int(1)"), "not only NAME = literal"),
        (replaced(1, '"07-example"', '"results"'), "OUT_DIR is not '07-example'"),
        (replaced(1, "PROFILE", "KIND"), "PROFILE is no parameter"),
        (replaced(2, "SEED=integer(), ", ""), "not checked: SEED"),
        (replaced(2, '"07-example"', '"06-other"'), "not named '07-example'"),
        (replaced(2, "lesson.check", "print"), "does not make a Lesson"),
        (replaced(4, ', "no seed"', ""), "asserted"),
        (replaced(4, 'assert SEED, "no seed"', "%pip install x"), "cell-04 is no plain Python"),
        (replaced(4, "assert SEED", 'open("/home/me/x")\nassert SEED'), "absolute path in a cell: /home/me/x"),
        (replaced(5, "lesson.metrics", "print"), "last code cell"),
        (replaced(0, "word ", ""), "words of prose"),
        (replaced(0, "# Example", "Example"), "begin with a title"),
        (replaced(0, "</details>", ""), "is not closed"),
        (replaced(0, "<details><summary>Answer</summary>\n\n42\n\n</details>", ""), "no exercise"),
        (lambda notebook: notebook.cells[1].metadata.pop("tags"), "not tagged"),
        (lambda notebook: notebook.cells[4].update(execution_count=3), "in git: cell-04"),
        (lambda notebook: notebook.cells[4].update(id="cell-40"), "in order"),
        (lambda notebook: notebook.metadata.update(widgets={}), "state of a run"),
        (lambda notebook: notebook.metadata.kernelspec.update(name="xpython"), "kernel is not python3"),
        (lambda notebook: notebook.cells.pop(3), "4 code cells in a row"),
    ],
)
def test_what_breaks_the_shape_is_said(breaks: Callable[[NotebookNode], object], said: str) -> None:
    notebook = example()
    breaks(notebook)
    assert any(said in finding for finding in findings_of_structure(notebook, "07-example"))
