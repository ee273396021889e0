"""The rows of a data file, each with the place where it stands: JSON lines, JSON, CSV, TSV and Parquet.

Reading finds what is wrong with the text and its form, row by row, and goes on: a user learns of all bad rows at once.
What the columns mean is decided in `layouts`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipytune.data.findings import Finding, Unusable

FORMATS = {
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
}
OBJECT = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'
LONGEST_FIELD = 2**31 - 1  # of a CSV file, in characters; csv's own limit of 131,072 is less than a long document


@dataclass(frozen=True)
class Record:
    """One row: the line on which it begins (from 1; the row's number where a format has no lines), and its columns."""

    line: int
    values: dict[str, Any]


def format_of(path: Path) -> str:
    """One of the names in FORMATS, by the file's name; `.gz` may follow all but Parquet. Raises Unusable."""
    suffixes = path.suffixes
    zipped = suffixes[-1:] == [".gz"]
    suffix = (suffixes[-2:-1] if zipped else suffixes[-1:]) or [""]
    name = FORMATS.get(suffix[0].lower())
    if name is None or (zipped and name == "Parquet"):
        raise Unusable(
            f"the name says no format that can be read (it ends in {''.join(suffixes[-2:]) or 'nothing'!r})",
            f"Name it after what it holds: {', '.join(FORMATS)}, all but the last also with .gz",
        )
    return name


def read_records(path: Path) -> tuple[list[Record], list[Finding]]:
    """All rows of a file, and what is wrong with the others; blank lines are skipped. Raises FileNotFoundError."""
    try:
        name = format_of(path)
        if name == "Parquet":
            return _parquet(path), []
        content = _content(path)
    except Unusable as unusable:
        return [], [Finding(path, 0, unusable.what, unusable.remedy)]
    if name == "JSON":
        return _json(path, content)
    if name == "JSON lines":
        return _json_lines(path, content)
    return _separated(path, content, separator="\t" if name == "TSV" else None)


def _content(path: Path) -> bytes:
    """The file's bytes, unpacked, without the byte-order mark that some editors put first."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise Unusable(f"not a whole gzip file ({error})", "Compress it again, or give it uncompressed") from error
    return content.removeprefix(b"\xef\xbb\xbf")


def _json_lines(path: Path, content: bytes) -> tuple[list[Record], list[Finding]]:
    records: list[Record] = []
    findings: list[Finding] = []
    for number, line in enumerate(io.BytesIO(content), start=1):
        if not line.strip():
            continue
        try:
            records.append(Record(number, _object(_parsed(line))))
        except Unusable as unusable:
            findings.append(Finding(path, number, unusable.what, unusable.remedy))
    return records, findings


def _json(path: Path, content: bytes) -> tuple[list[Record], list[Finding]]:
    """An array of objects, alone or as the one list of an object; JSON lines under another name are taken too."""
    try:
        value = _parsed(content, remedy="Write an array of objects, or name the file .jsonl and write one a line")
    except Unusable as unusable:
        records, findings = _json_lines(path, content)
        if len(records) > len(findings):
            return records, findings
        return [], [Finding(path, 0, unusable.what, unusable.remedy)]
    if isinstance(value, dict):
        lists = [
            item for item in value.values() if isinstance(item, list) and any(isinstance(row, dict) for row in item)
        ]
        if len(lists) != 1 or "messages" in value or "conversations" in value:
            return [Record(1, value)], []  # one conversation
        value = lists[0]
    if not isinstance(value, list):
        return [], [Finding(path, 0, f"no rows, but {_kind(value)}", "Write an array of objects, one a conversation")]
    records, findings = [], []
    for number, item in enumerate(value, start=1):
        try:
            records.append(Record(number, _object(item)))
        except Unusable as unusable:
            findings.append(Finding(path, number, unusable.what, unusable.remedy))
    return records, findings


def _parsed(text: bytes, remedy: str = f"Write one whole object a line: {OBJECT}") -> Any:
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(f"not UTF-8 at byte {error.start}", "Save the file as UTF-8") from error
    try:
        return json.loads(decoded)
    except ValueError as error:
        raise Unusable(f"not JSON ({error})", remedy) from error
    except RecursionError as error:
        raise Unusable("nested too deeply", f"Write one flat object a line: {OBJECT}") from error


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable(f"not an object with columns, but {_kind(value)}", f"Write one conversation a line: {OBJECT}")
    return value


def _kind(value: object) -> str:
    names = {list: "a list", dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _separated(path: Path, content: bytes, separator: str | None) -> tuple[list[Record], list[Finding]]:
    """A table that begins with its columns' names. None: comma, or semicolon where the first line has no comma."""
    lines = content.split(b"\n")
    if separator is None:
        separator = ";" if b";" in lines[0] and b"," not in lines[0] else ","
    garbled: list[int] = []
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        return _table(path, csv.reader(_decoded(lines, garbled), delimiter=separator, strict=True), garbled)
    finally:
        csv.field_size_limit(limit)


def _decoded(lines: list[bytes], garbled: list[int]) -> Iterator[str]:
    """Lines as text; the numbers of those that are no UTF-8 are noted, and their bytes replaced."""
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            garbled.append(number)
            text = line.decode("utf-8", errors="replace")
        yield text + "\n" if number < len(lines) else text


def _table(path: Path, reader: Any, garbled: list[int]) -> tuple[list[Record], list[Finding]]:
    records: list[Record] = []
    findings: list[Finding] = []
    names: list[str] | None = None
    while True:
        begins = reader.line_num + 1  # a quoted line break makes a row longer than a line
        try:
            fields = next(reader)
        except StopIteration:
            return records, findings
        except csv.Error as error:
            what = f"not CSV ({error}); the rest of the file was not read"
            return records, [*findings, Finding(path, begins, what, 'Close every quote, and write a quote in it as ""')]
        if not any(field.strip() for field in fields):
            continue
        bad = [number for number in garbled if begins <= number <= reader.line_num]
        if bad:
            findings.append(Finding(path, bad[0], "not UTF-8", "Save the file as UTF-8"))
        elif names is None:
            names = [field.strip() for field in fields]
            if len(set(names)) < len(names) or "" in names:
                remedy = "Give every column a name of its own in the first line"
                return [], [Finding(path, begins, f"columns without a name, or with the same one: {names}", remedy)]
        elif len(fields) != len(names):
            what = f"{len(fields)} fields, but {len(names)} columns ({', '.join(names)})"
            findings.append(Finding(path, begins, what, "Put fields that hold the separator or a line break in quotes"))
        else:
            records.append(Record(begins, dict(zip(names, fields, strict=True))))


def _parquet(path: Path) -> list[Record]:
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise Unusable(
            "reading Parquet needs pyarrow, which is not installed",
            "Install it with `pip install 'ipytune[data]'`, or save the data as JSON lines",
        ) from error
    try:
        with ParquetFile(path) as file:
            rows = [row for batch in file.iter_batches() for row in batch.to_pylist()]
    except (ArrowException, OSError) as error:
        raise Unusable(f"not a whole Parquet file ({error})", "Write it again") from error
    return [Record(number, row) for number, row in enumerate(rows, start=1)]
