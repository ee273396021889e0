"""What of an old output is kept, and what runs again for its variables."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.papermill import resume
from ipytune.papermill.resume import CannotResume, Known, plan, rebuild

Cell = Any
RUN = "0123456789abcdef" * 2


def notebook(*sources: str, tags: dict[int, list[str]] | None = None) -> Any:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for number, given_tags in (tags or {}).items():
        cells[number].metadata["tags"] = given_tags
    return nbformat.v4.new_notebook(cells=cells)


def output(*cells: tuple[str, str], ours: bool = True, tags: dict[int, list[str]] | None = None) -> Any:
    """Sources with how they ended: good, failed, cut (papermill alone: marked completed) or pending."""
    old = notebook(*(source for source, _ in cells), tags=tags)
    for count, (cell, (_, end)) in enumerate(zip(old.cells, cells, strict=True), 1):
        begun = end != "pending"
        cell.execution_count = count if begun else None
        cell.metadata["papermill"] = {
            "status": {"good": "completed", "failed": "failed", "cut": "completed", "pending": "pending"}[end],
            "exception": end == "failed" if begun else None,
            "start_time": "2026-01-01T00:00:00" if begun else None,
            "end_time": "2026-01-01T00:00:01" if begun else None,
        }
    if ours:
        old.metadata["ipytune"] = {"run": RUN}
    return old


def test_goes_on_at_the_cell_that_failed() -> None:
    found = plan(
        notebook("a = 1", "b = a", "c = b"), output(("a = 1", "good"), ("b = a", "failed"), ("c = b", "pending"))
    )
    assert (len(found.kept), found.reason, found.run, found.finished) == (1, "cell 2 failed", RUN, False)


def test_a_changed_cell_is_where_it_goes_on() -> None:
    old = output(("a = 1", "good"), ("b = a", "good"), ("c = b", "failed"))
    found = plan(notebook("a = 1", "b = -a", "c = b"), old)
    assert (len(found.kept), found.reason) == (1, "cell 2 was changed")


def test_a_finished_output_leaves_nothing_to_run() -> None:
    assert plan(notebook("a = 1"), output(("a = 1", "good"))).finished


def test_cells_may_be_added_behind() -> None:
    found = plan(notebook("a = 1", "b = 2"), output(("a = 1", "good")))
    assert (len(found.kept), found.reason) == (1, "cell 2 is new")


def test_changed_parameters_begin_anew_but_not_those_of_the_place() -> None:
    injected = {1: [resume.INJECTED]}
    old = output(
        ("N = 1", "good"), ("# Parameters\nN = 2\nruntime = '1:00'", "good"), ("f(N)", "failed"), tags=injected
    )
    longer = notebook("N = 1", "# Parameters\nN = 2\nruntime = '2:00'", "f(N)", tags=injected)
    other = notebook("N = 1", "# Parameters\nN = 3\nruntime = '1:00'", "f(N)", tags=injected)
    assert len(plan(longer, old).kept) == 2
    assert (len(plan(other, old).kept), plan(other, old).reason) == (1, "the parameters changed")


def test_banners_in_an_output_do_not_count() -> None:
    old = output(("a = 1", "good"), ("b = a", "failed"))
    banner = nbformat.v4.new_markdown_cell("stopped", metadata={"tags": [resume.BANNER]})
    old.cells = [banner, old.cells[0], banner, old.cells[1]]
    assert len(plan(notebook("a = 1", "b = a"), old).kept) == 1


def test_an_output_of_another_notebook_is_refused() -> None:
    with pytest.raises(CannotResume, match="of another notebook"):
        plan(notebook("a = 1"), output(("print('b')", "good")))


def test_papermills_word_alone_is_no_proof_for_the_last_cell_that_began() -> None:
    """papermill writes `completed` beside the cell in which the kernel died, and beside those after it."""
    cells = [("a = 1", "good"), ("die()", "cut"), ("c = 3", "pending")]
    assert len(plan(notebook("a = 1", "die()", "c = 3"), output(*cells, ours=False)).kept) == 1
    assert len(plan(notebook("a = 1", "die()", "c = 3"), output(*cells, ours=True)).kept) == 2


def test_the_name_of_a_run_is_only_taken_when_it_is_one() -> None:
    old = output(("a = 1", "failed"))
    old.metadata["ipytune"] = {"run": "../../somewhere"}
    assert plan(notebook("a = 1"), old).run is None


ENDS = st.sampled_from(["good", "failed", "pending"])


@given(st.lists(st.tuples(st.sampled_from("abcd"), ENDS), min_size=1, max_size=8), st.data())
def test_what_is_kept_is_an_unbroken_run_of_finished_and_equal_cells(
    cells: list[tuple[str, str]], data: st.DataObject
) -> None:
    sources = [data.draw(st.sampled_from([source, source, source, "z"])) for source, _ in cells]
    new, old = notebook(*sources), output(*cells)
    try:
        kept = len(plan(new, old).kept)
    except CannotResume:
        assert not set(sources) & {source for source, _ in cells}
        return
    same = [source == before and end == "good" for source, (before, end) in zip(sources, cells, strict=True)]
    assert kept == (same.index(False) if False in same else len(same))


def test_what_is_not_needed_any_more_is_not_made_again() -> None:
    known = {"lock": Known((0,), "no pickle", handle=True)}
    assert rebuild(["lock = Lock()", "x = 1", "print(x)"], 2, known).cells == ()
    assert rebuild(["lock = Lock()", "x = 1", "lock.acquire()"], 2, known).cells == (0,)


def test_a_handle_is_made_again_without_the_cells_that_used_it() -> None:
    known = {"lock": Known((0, 1), "no pickle", handle=True), "x": Known((1,))}
    assert rebuild(["lock = Lock()", "with lock: x = 1", "lock, x"], 2, known).cells == (0,)


def test_what_has_a_state_is_made_again_with_all_cells_that_touched_it() -> None:
    known = {"numbers": Known((0, 1), "no pickle"), "x": Known((1,))}
    found = rebuild(["numbers = iter(range(9))", "x = next(numbers)", "next(numbers)"], 2, known)
    assert found.cells == (0, 1)
    assert found.why == {"numbers": "no pickle"}


def test_a_cell_that_runs_again_takes_all_others_along_that_its_effect_depends_on() -> None:
    """Run again alone, the second cell would count from 2."""
    sources = ["i = 0", "i += 1; stream = open('f')", "i += 1", "stream.read(i)"]
    known = {"i": Known((0, 1, 2)), "stream": Known((1, 2), "no pickle")}
    assert rebuild(sources, 3, known).cells == (0, 1, 2)


def test_a_function_may_need_what_the_cells_to_come_do_not_name() -> None:
    sources = ["lock = Lock()", "def f():\n    with lock: return 1", "f()"]
    known = {"lock": Known((0, 1), "no pickle", handle=True), "f": Known((1,))}
    assert rebuild(sources, 2, known).cells == (0,)


def test_a_variable_of_a_later_moment_is_made_again_or_left_away() -> None:
    """The record is of cell 3, but cell 2 was changed, so the run goes on there."""
    known = {"x": Known((0, 2)), "y": Known((2,)), "z": Known((1,))}
    found = rebuild(["x = 1", "z = 3", "print(x, y, z)", "y = x"], 2, known)
    assert found.cells == (0,)
    assert found.stale == {"x", "y"}


def test_a_cell_tagged_once_is_not_run_again() -> None:
    known = {"stream": Known((0,), "no pickle")}
    with pytest.raises(CannotResume, match=r"stream could not be kept \(no pickle\), and cell 1"):
        rebuild(["stream = charge()", "stream.read()"], 1, known, once={0})


@pytest.mark.parametrize(
    "cell", ["%run lib.py stream", "!cat > stream", "%%time\nstream = 1", "stream = !ls", "(stream"]
)
def test_cells_that_are_no_plain_python_are_taken_at_their_words(cell: str) -> None:
    known = {"stream": Known((0,), "no pickle", handle=True)}
    assert rebuild([cell, "stream"], 1, known).cells == (0,)


SOURCES = ["a = 1", "b = a", "a += 1", "c = (a, b)", "def f(): return a", "print(f(), c)", "b = next(a)"]


@given(st.lists(st.sampled_from(SOURCES), min_size=1, max_size=8), st.data())
def test_cells_to_run_again_are_finished_ones_and_all_that_change_the_same(
    sources: list[str], data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(sources)))
    reasons = st.one_of(st.none(), st.just("no pickle"))
    numbers = st.lists(st.integers(0, len(sources) - 1), min_size=1, unique=True).map(sorted).map(tuple)
    known = {name: Known(data.draw(numbers), data.draw(reasons)) for name in "abcf"}
    found = rebuild(sources, kept, known)
    assert all(number < kept for number in found.cells)
    for name, what in known.items():
        before = {number for number in what.changed if number < kept}
        if name not in found.stale and before & set(found.cells):
            assert before <= set(found.cells), "a cell that runs again must not meet its own effect"
        if what.left:
            assert name not in found.why or what.left == found.why[name]
