"""Rows that live in Python (a datasets.Dataset, a data frame, a list of dicts), written as JSON lines.

The training process is another process, maybe on another machine: it reads files and nothing else.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def save_rows(rows: Any, path: Path | str) -> Path:
    """Writes one JSON object a row, and returns the path (for `train_file`). A file that exists is replaced as a whole.

    rows: a datasets.Dataset, a pandas or polars data frame, a pyarrow Table, or dicts. Missing values (None, NaN)
    become null. Raises ValueError for a path that is not .jsonl or .jsonl.gz, for no rows, and for values that JSON
    cannot hold, naming row and column.
    """
    path = Path(path).expanduser()
    if path.suffix not in {".jsonl", ".gz"} or (path.suffix == ".gz" and Path(path.stem).suffix != ".jsonl"):
        raise ValueError(
            f"rows are written as JSON lines, so the file must end in .jsonl or .jsonl.gz, not {path.name}."
        )
    lines = [_line(number, row) for number, row in enumerate(iterate(rows), start=1)]
    if not lines:
        raise ValueError("there are no rows to write. Give at least one conversation.")
    content = "".join(lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    # mtime=0: the same rows give the same file, so the checksum in a run's configuration stays right.
    beside.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    beside.replace(path)
    return path


def iterate(rows: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of whatever holds rows; known by what it can do, so that none of these libraries is imported."""
    if isinstance(rows, Mapping):
        raise ValueError(
            f"these are several data sets or columns ({', '.join(map(repr, list(rows)[:5]))}), not rows. Choose one, "
            f'for example dataset["train"], or give a list of dicts.'
        )
    for method in ("iter_rows", "to_pylist"):  # polars; pyarrow
        if hasattr(rows, method):
            return iter(rows.iter_rows(named=True) if method == "iter_rows" else rows.to_pylist())
    if hasattr(rows, "itertuples"):  # pandas
        return iter(rows.to_dict(orient="records"))
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise ValueError(
            f"{type(rows).__name__} holds no rows. Give a datasets.Dataset, a data frame, or a list of dicts; "
            f"for a file, name it as train_file."
        )
    return iter(rows)


def _line(number: int, row: Any) -> str:
    if not isinstance(row, Mapping):
        raise ValueError(f"row {number} is {type(row).__name__}, not a dict of columns. Give a list of dicts.")
    whole = {str(name): None if _missing(value) else value for name, value in row.items()}
    try:
        return json.dumps(whole, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
    except (TypeError, ValueError) as error:
        column = next((name for name, value in whole.items() if not _writable(value)), "?")
        raise ValueError(
            f"row {number}, column {column!r} cannot be written as JSON ({error}). Turn it into text, or leave the "
            f"column out."
        ) from error


def _missing(value: Any) -> bool:
    return isinstance(value, float) and value != value  # NaN: how pandas says that nothing is there


def _plain(value: Any) -> Any:
    """NumPy's scalars and arrays, and pandas' and Arrow's, as Python's own."""
    for method in ("tolist", "as_py"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"{type(value).__name__} is not text, a number, a list or an object")


def _writable(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False, default=_plain)
    except (TypeError, ValueError):
        return False
    return True
