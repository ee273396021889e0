"""The sets of parameters of a batch: from -p, from a file that lists sets, from a grid, or from all three.

Promises: every set is checked against the notebook before one is run; a name comes from one place only; the order is
that of the file, then that of the grid with its last name changing fastest.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ipytune.batch.parameters import ParameterError, check, from_yaml, known, typed

MOST = 1000
"""Sets of one batch. Slurm's MaxArraySize is 1001 unless a site says otherwise."""
OUT_DIR = "OUT_DIR"

Set = dict[str, Any]


def build(
    defaults: Mapping[str, Any],
    fixed: Sequence[tuple[str, str]] = (),
    rows: Sequence[Mapping[str, Any]] = (),
    grid: Sequence[str] = (),
) -> list[Set]:
    """fixed: the same in every set, as text. rows: one set each. grid: `NAME=a,b,c`, all combinations.

    Raises ParameterError with every finding, at most ten of them, each with its set.
    """
    common = {name: _typed(name, text, defaults) for name, text in fixed}
    if len(common) < len(fixed):
        raise ParameterError(f"-p {_repeated([name for name, _ in fixed])} is given twice.")
    axes = [_axis(text, defaults) for text in grid]
    if len({name for name, _ in axes}) < len(axes):
        raise ParameterError(f"--grid {_repeated([name for name, _ in axes])} is given twice.")
    _apart(common, rows, [name for name, _ in axes])
    count = max(1, len(rows))
    for _, values in axes:
        count *= len(values)
    if count > MOST:
        raise ParameterError(f"These are {count} sets, and a batch has at most {MOST}. Make several of them.")
    products = list(itertools.product(*([(name, value) for value in values] for name, values in axes)))
    sets = [{**common, **row, **dict(product)} for row in rows or [{}] for product in products]
    checked, findings = [], []
    for number, given in enumerate(sets):
        try:
            checked.append({name: check(name, value, defaults) for name, value in given.items()})
        except ParameterError as error:
            findings.append(str(error) if len(sets) == 1 else f"set {number}: {error}")
    findings = list(dict.fromkeys(findings))
    if findings:
        more = [f"and {len(findings) - 10} more"] if len(findings) > 10 else []
        raise ParameterError("\n".join([*findings[:10], *more]))
    _own_folders(checked)
    return checked


def read(path: Path, defaults: Mapping[str, Any]) -> list[Set]:
    """The sets of a file: a list of mappings in YAML or JSON, one mapping a line in JSON lines, or a table (CSV) whose
    first line has the names; a cell left empty there keeps the default. Raises ParameterError or OSError."""
    text = path.read_text(encoding="utf-8-sig")
    kind = path.suffix.lower()
    try:
        if kind == ".csv":
            return _table(text, defaults)
        if kind == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        elif kind == ".json":
            rows = json.loads(text)
        elif kind in {".yaml", ".yml"}:
            rows = from_yaml(text)
        else:
            raise ParameterError(f"{path}: .yaml, .json, .jsonl or .csv is expected.")
    except (ValueError, yaml.YAMLError) as error:
        if isinstance(error, ParameterError):
            raise ParameterError(f"{path}: {error}") from error
        raise ParameterError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ParameterError(f"{path}: a list of sets is expected, each with NAME: value.")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _table(text: str, defaults: Mapping[str, Any]) -> list[Set]:
    table = csv.DictReader(io.StringIO(text), strict=True, skipinitialspace=True)
    names = [name.strip() for name in table.fieldnames or ()]
    if not names or not all(names):
        raise ParameterError("its first line must have the name of each column.")
    if len(set(names)) < len(names):
        raise ParameterError(f"two columns are named {_repeated(names)}.")
    table.fieldnames = names
    rows = []
    for row in table:
        if None in row:
            raise ParameterError(f"line {table.line_num} has more cells than the first line has names.")
        rows.append({name: _typed(name, cell, defaults) for name, cell in row.items() if cell})
    if not rows:
        raise ParameterError("it has no line below its names.")
    return rows


def _axis(text: str, defaults: Mapping[str, Any]) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    name, values = name.strip(), values.strip()
    if not equals or not name or not values:
        raise ParameterError(f"--grid {text}: NAME=a,b,c is expected, as in --grid RANK=8,16.")
    known(name, defaults)
    if values.startswith("["):
        listed = typed(values)
        if not isinstance(listed, list) or not listed:
            raise ParameterError(f"--grid {text}: a list of values is expected.")
        return name, listed
    return name, [_typed(name, value.strip(), defaults) for value in values.split(",")]


def _typed(name: str, text: str, defaults: Mapping[str, Any]) -> Any:
    known(name, defaults)
    return typed(text, defaults[name])


def _apart(common: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> None:
    """Refuses a name that comes from two places: one of them would be lost."""
    listed = {name for row in rows for name in row}
    for name in axes:
        if name in common or name in listed:
            raise ParameterError(f"--grid {name}: it is given by {'-p' if name in common else '--set'} too.")
    for name in common:
        if name in listed:
            raise ParameterError(f"-p {name}: it is given by --set too.")


def _own_folders(sets: Sequence[Set]) -> None:
    """Refuses two sets that would write to one place. Unless it is given, a batch gives each set its own."""
    folders = [str(given[OUT_DIR]) for given in sets if given.get(OUT_DIR) is not None]
    if len(set(folders)) < len(folders):
        raise ParameterError(
            f"{OUT_DIR} is {_repeated(folders)} for several sets, which would overwrite one another's results. Leave "
            f"it out: each set then has its own folder in the batch."
        )


def _repeated(names: Sequence[str]) -> str:
    return next(name for number, name in enumerate(names) if name in names[:number])
