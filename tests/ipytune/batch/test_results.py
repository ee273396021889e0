"""The table of a batch: what differs, what was measured, in which order."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.batch import notebooks
from ipytune.batch.directory import State
from ipytune.batch.overview import Row
from ipytune.batch.results import as_csv, as_json, differing, lookup, measured, order, records, state_words, tally

ROWS = [
    Row(0, {"RANK": 8, "NAME": "a"}, State.DONE, seconds=2.0, metrics={"loss": 0.5, "seconds": 1, "deep": {"x": [7]}}),
    Row(1, {"RANK": 16, "NAME": "a"}, State.FAILED, "ValueError: no (code cell 3)", seconds=1.0),
    Row(2, {"RANK": True, "NAME": "a"}, State.DONE, seconds=9.0, metrics={"loss": 0.25, "note": "text"}),
    Row(3, {"NAME": "a"}, State.RUNNING, done=3, cells=7),
]


def test_what_differs_and_what_was_measured() -> None:
    assert differing(ROWS) == ["RANK"]
    assert differing([Row(0, {"ON": True}, State.DONE), Row(1, {"ON": 1}, State.DONE)]) == ["ON"]
    assert measured(ROWS) == ["loss"]
    assert lookup(ROWS[0].metrics, "deep.x.0") == 7
    assert lookup(ROWS[0].metrics, "deep.y.0") is None is lookup(None, "loss")


def test_a_table_for_machines() -> None:
    table = list(csv.DictReader(io.StringIO(as_csv(ROWS, ["loss", "deep.x"]))))
    assert table[0] == {"set": "0", "RANK": "8", "state": "done", "seconds": "2.0", "loss": "0.5", "deep.x": "[7]",
                        "error": ""}  # fmt: skip
    assert (table[1]["error"], table[3]["error"]) == ("ValueError: no (code cell 3)", "")
    whole = json.loads(as_json(ROWS))
    assert whole[0]["metrics"]["deep"] == {"x": [7]} and whole[1]["error"] == ROWS[1].words


def test_a_name_of_ours_is_not_lost() -> None:
    rows = [Row(0, {"seconds": 1, "RANK": 1}, State.DONE, metrics={"RANK": 5, "error": 2}),
            Row(1, {"seconds": 2, "RANK": 2}, State.DONE)]  # fmt: skip
    assert records(rows, ["RANK", "error"])[0] == {
        "set": 0, "parameters.seconds": 1, "RANK": 1, "state": "done", "seconds": None, "metrics.RANK": 5,
        "metrics.error": 2, "error": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("by", "expected"),
    [(None, [0, 1, 2, 3]), ("-seconds", [2, 0, 1, 3]), ("loss", [2, 0, 1, 3]), ("deep.x.0", [0, 1, 2, 3]),
     ("RANK", [2, 0, 1, 3]), ("-set", [3, 2, 1, 0])],
)  # fmt: skip
def test_orders(by: str | None, expected: list[int]) -> None:
    assert [row.number for row in order(ROWS, by)] == expected
    with pytest.raises(ValueError, match="There are set, state, seconds, RANK, loss"):
        order(ROWS, "zebra")


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers())


@given(st.lists(anything, min_size=1, max_size=8))
def test_any_values_can_be_sorted_and_written(values: list[Any]) -> None:
    rows = [Row(n, {"P": value}, State.DONE, metrics={"m": value}) for n, value in enumerate([*values, 1])]
    assert sorted(row.number for row in order(rows, "-P")) == list(range(len(rows)))
    assert len(list(csv.reader(io.StringIO(as_csv(rows))))) == len(rows) + 1


def test_words() -> None:
    assert state_words(ROWS[3]) == "running 3 of 7 cells"
    assert state_words(ROWS[1]) == "failed: ValueError: no (code cell 3)"
    assert tally(ROWS) == "2 done, 1 running, 1 failed"


def test_how_far_a_notebook_is() -> None:
    def cell(status: str, *outputs: Any) -> dict[str, Any]:
        told = {"papermill": {"status": status, "exception": status == "failed"}}
        return {"cell_type": "code", "metadata": told, "outputs": list(outputs)}

    error = {"output_type": "error", "ename": "ValueError", "evalue": "too \x1b[31mbig\nmore", "traceback": []}
    notebook = {"cells": [{"cell_type": "markdown"}, cell("completed"), cell("failed", error), cell("pending")]}
    assert notebooks.advance(notebook) == notebooks.Advance(1, 3, "ValueError: too [31mbig (code cell 2)")
    error["evalue"] = "tiny cannot run like this:\n- RANK = 0: at least 1\n"
    told = notebooks.advance({"cells": [cell("failed", error)]})
    assert told.error == "ValueError: tiny cannot run like this: - RANK = 0: at least 1 (code cell 1)"
