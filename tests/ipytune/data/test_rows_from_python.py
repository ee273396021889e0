"""Rows that live in Python are written once as JSON lines, and read back as they were."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ipytune.data.read import read
from ipytune.data.rows import save_rows

ROWS = [{"prompt": "q1", "completion": "ä"}, {"prompt": "q2", "completion": None}]


class Frame:
    """As pandas has it: columns with NaN for what is missing, scalars that are not Python's."""

    def itertuples(self) -> Any: ...

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return [{"prompt": "q1", "completion": "ä"}, {"prompt": "q2", "completion": float("nan")}]


class Scalar:
    def tolist(self) -> int:
        return 3


def test_dicts_and_frames_are_written_alike(tmp_path: Path) -> None:
    for rows in (ROWS, iter(ROWS), Frame()):
        path = save_rows(rows, tmp_path / "new" / "rows.jsonl")
        assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS


def test_the_same_rows_compressed_give_the_same_file(tmp_path: Path) -> None:
    first, second = (save_rows(ROWS, tmp_path / f"{name}.jsonl.gz").read_bytes() for name in "ab")
    assert first == second
    assert json.loads(gzip.decompress(first).splitlines()[0]) == ROWS[0]
    assert len(read(tmp_path / "a.jsonl.gz")[0]) == 1


def test_scalars_of_other_libraries_become_python_s(tmp_path: Path) -> None:
    path = save_rows([{"n": Scalar()}], tmp_path / "rows.jsonl")
    assert json.loads(path.read_text()) == {"n": 3}


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([], "no rows"),
        ({"train": []}, r"Choose one, for example dataset\[\"train\"\]"),
        ("file.csv", "name it as train_file"),
        (3, "int holds no rows"),
        ([{"a": 1}, ["b"]], "row 2 is list, not a dict"),
        ([{"a": 1, "b": object()}], "row 1, column 'b' cannot be written"),
        ([{"a": {"b": float("inf")}}], "row 1, column 'a' cannot be written"),
    ],
)
def test_what_is_no_row_is_refused_and_nothing_written(tmp_path: Path, rows: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        save_rows(rows, tmp_path / "rows.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_another_format_is_refused(tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.csv.gz", "rows"):
        with pytest.raises(ValueError, match=r"must end in \.jsonl"):
            save_rows(ROWS, tmp_path / name)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(tmp_path: Path, library: str) -> None:
    frame = pytest.importorskip(library).DataFrame(ROWS)
    assert [json.loads(line) for line in save_rows(frame, tmp_path / "a.jsonl").read_text().splitlines()] == ROWS


def test_datasets(tmp_path: Path) -> None:
    dataset = pytest.importorskip("datasets").Dataset.from_list(ROWS)
    assert [json.loads(line) for line in save_rows(dataset, tmp_path / "a.jsonl").read_text().splitlines()] == ROWS
