"""Rows keep the line on which they stand, whatever the format; what cannot be read is named and the rest is read."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.data.formats import read_records

ROW = {"prompt": "2 nodes", "completion": "--nodes=2"}


def read(path: Path, content: bytes | str) -> tuple[list[tuple[int, object]], list[tuple[int, str]]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    records, findings = read_records(path)
    assert all(finding.remedy and finding.file == path for finding in findings)
    return [(one.line, one.values) for one in records], [(finding.line, finding.what) for finding in findings]


def test_json_lines_also_compressed(tmp_path: Path) -> None:
    content = f"\n{json.dumps(ROW)}\n".encode()
    assert read(tmp_path / "a.jsonl", content) == ([(2, ROW)], [])
    assert read(tmp_path / "a.JSONL", content)[0] == read(tmp_path / "a.ndjson", content)[0] == [(2, ROW)]
    assert read(tmp_path / "a.jsonl.gz", gzip.compress(content)) == ([(2, ROW)], [])
    assert "not a whole gzip file" in read(tmp_path / "a.jsonl.gz", gzip.compress(content)[:-9])[1][0][1]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([ROW, ROW]),
        json.dumps({"version": 1, "tags": ["x"], "data": [ROW, ROW]}, indent=1),
        f"{json.dumps(ROW)}\n{json.dumps(ROW)}\n",
    ],
)
def test_json_is_an_array_or_holds_one_or_is_lines_after_all(tmp_path: Path, content: str) -> None:
    assert read(tmp_path / "a.json", content) == ([(1, ROW), (2, ROW)], [])


def test_one_conversation_may_be_the_whole_file(tmp_path: Path) -> None:
    whole = {"messages": [{"role": "user", "content": "x"}]}
    assert read(tmp_path / "a.json", json.dumps(whole)) == ([(1, whole)], [])


@pytest.mark.parametrize(
    ("content", "place", "what"),
    [("[1, 2", 0, "not JSON"), ("3", 0, "no rows, but a number"), ('[{"a": 1}, "b"]', 2, "but a text")],
)
def test_json_that_holds_no_rows_is_named(tmp_path: Path, content: str, place: int, what: str) -> None:
    ((line, found),) = read(tmp_path / "a.json", content)[1]
    assert line == place
    assert what in found


def test_lines_of_csv_count_quoted_line_breaks_and_blank_lines(tmp_path: Path) -> None:
    content = '\ufeffprompt,completion\r\n"two\r\nlines","a ""quote"""\r\n\r\nlast,"x, y"\r\n,\r\n'
    assert read(tmp_path / "a.csv", content) == (
        [
            (2, {"prompt": "two\r\nlines", "completion": 'a "quote"'}),
            (5, {"prompt": "last", "completion": "x, y"}),
        ],
        [],
    )


def test_semicolons_and_tabs_separate_too(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "a;b\n1,5;2\n")[0] == [(2, {"a": "1,5", "b": "2"})]
    assert read(tmp_path / "a.tsv", "a\tb\n1,5\t2\n")[0] == [(2, {"a": "1,5", "b": "2"})]


@pytest.mark.parametrize(
    ("content", "line", "what", "rows"),
    [
        (b"a,b\n1,2,3\n4,5\n", 2, "3 fields, but 2 columns", 1),
        (b"a,b\n\xff,2\n4,5\n", 2, "not UTF-8", 1),
        (b'a,b\n4,5\n"open,2\n4,5\n', 3, "the rest of the file was not read", 1),
        (b"a,a\n1,2\n", 1, "with the same one", 0),
        (b"a,\n1,2\n", 1, "without a name", 0),
    ],
)
def test_bad_rows_of_csv_are_named(tmp_path: Path, content: bytes, line: int, what: str, rows: int) -> None:
    records, findings = read(tmp_path / "a.csv", content)
    assert len(records) == rows
    assert [number for number, _ in findings] == [line]
    assert what in findings[0][1]


def test_long_fields_are_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    assert len(read(tmp_path / "a.csv", f"a,b\n{'x' * 200_000},1\n")[0]) == 1
    assert csv.field_size_limit() == limit


TEXT = st.text(st.characters(exclude_characters="\x00\r", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=6))
def test_what_csv_writes_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("any") / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "completion"])
        starts = [2 + sum(a.count("\n") + b.count("\n") + 1 for a, b in rows[:i]) for i in range(len(rows))]
        writer.writerows(rows)
    records, findings = read_records(path)
    written = [(start, row) for start, row in zip(starts, rows, strict=True) if "".join(row).strip()]
    assert findings == []
    assert [(one.line, tuple(one.values.values())) for one in records] == written


@given(st.sampled_from([".json", ".csv", ".tsv", ".jsonl.gz", ".json.gz"]), st.binary(max_size=120))
def test_no_bytes_break_a_reader(tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / f"any{suffix}"
    path.write_bytes(content)
    read_records(path)


def test_an_unknown_format_is_refused_by_its_name(tmp_path: Path) -> None:
    for name in ("data.xlsx", "data", "data.parquet.gz"):
        ((line, what),) = read(tmp_path / name, b"")[1]
        assert line == 0
        assert "says no format" in what


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"messages": [{"role": "user", "content": "x"}], "n": 1}, {"messages": None, "n": 2}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    records, findings = read_records(tmp_path / "a.parquet")
    assert findings == []
    assert [(one.line, one.values) for one in records] == [(1, rows[0]), (2, rows[1])]
    assert "not a whole Parquet file" in read(tmp_path / "b.parquet", b"PAR1")[1][0][1]


def test_parquet_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (finding,) = read_records(tmp_path / "a.parquet")[1]
    assert "ipytune[data]" in finding.remedy


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        with pytest.raises(FileNotFoundError):
            read_records(tmp_path / name)
