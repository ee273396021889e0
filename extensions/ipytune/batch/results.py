"""The rows of a batch as a table: what differs between the sets, how each stands, what it measured. Pure."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ipytune.batch.directory import State
from ipytune.batch.overview import Row
from ipytune.runs import words

OF_EVERY_NOTEBOOK = frozenset({"notebook", "profile", "parameters", "seconds", "versions", "hardware"})
"""Entries of metrics.json that say how it was measured, and not what."""
FIXED = ("set", "state", "seconds")


def differing(rows: Sequence[Row]) -> list[str]:
    """Names of the parameters that are not the same in all sets."""
    names = list(dict.fromkeys(name for row in rows for name in row.parameters))
    missing = object()
    return [name for name in names if len({repr(row.parameters.get(name, missing)) for row in rows}) > 1]


def measured(rows: Sequence[Row]) -> list[str]:
    """The numbers at the top of the sets' metrics: what is shown unless somebody chooses."""
    names = dict.fromkeys(
        name
        for row in rows
        for name, value in (row.metrics or {}).items()
        if name not in OF_EVERY_NOTEBOOK and isinstance(value, (int, float))
    )
    return list(names)


def lookup(metrics: Mapping[str, Any] | None, path: str) -> Any:
    """A value by its dotted path; None when it is not there. A list is entered by number.

    >>> lookup({"a": {"b": [1, 2]}}, "a.b.1")
    2
    """
    if metrics is not None and path in metrics:
        return metrics[path]
    found: Any = metrics
    for part in path.split("."):
        if isinstance(found, Mapping):
            found = found.get(part)
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def records(rows: Sequence[Row], chosen: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One flat record a set, for CSV and the table. A metric that is named as a parameter stands after it."""
    parameters = differing(rows)
    metrics = list(chosen) if chosen else measured(rows)
    made = []
    for row in rows:
        record: dict[str, Any] = {"set": row.number}
        record.update({_column(name): row.parameters.get(name) for name in parameters})
        record |= {"state": row.state.value, "seconds": None if row.seconds is None else round(row.seconds, 1)}
        record.update({_free(name, record): lookup(row.metrics, name) for name in metrics})
        record["error"] = row.words if row.state.final else ""
        made.append(record)
    return made


def order(rows: Sequence[Row], by: str | None, chosen: Sequence[str] | None = None) -> list[Row]:
    """By a column, or downwards with `-` before its name; sets without a value come last. ValueError: no such one."""
    if by is None:
        return list(rows)
    name, down = by.removeprefix("-"), by.startswith("-")
    if name in FIXED:
        values = {
            row.number: {"set": row.number, "state": row.state.value, "seconds": row.seconds}[name] for row in rows
        }
    elif any(name in row.parameters for row in rows):
        values = {row.number: row.parameters.get(name) for row in rows}
    else:
        values = {row.number: lookup(row.metrics, name) for row in rows}
        if all(value is None for value in values.values()):
            known = [*FIXED, *differing(rows), *(chosen or measured(rows))]
            raise ValueError(f"--sort {by}: there is no such column. There are {', '.join(known)}.")
    present = [row for row in rows if values[row.number] is not None]
    absent = [row for row in rows if values[row.number] is None]
    return sorted(present, key=lambda row: _sortable(values[row.number]), reverse=down) + absent


def as_json(rows: Sequence[Row]) -> str:
    """Everything that is known, of each set."""
    made = [
        {
            "set": row.number,
            "parameters": dict(row.parameters),
            "state": row.state.value,
            "error": row.words if row.state.final and row.words else None,
            "seconds": None if row.seconds is None else round(row.seconds, 3),
            "metrics": row.metrics,
        }
        for row in rows
    ]
    return json.dumps(made, indent=1, ensure_ascii=False)


def as_csv(rows: Sequence[Row], chosen: Sequence[str] | None = None) -> str:
    made = records(rows, chosen)
    out = io.StringIO()
    table = csv.DictWriter(out, list(made[0]) if made else ["set"], lineterminator="\n")
    table.writeheader()
    table.writerows({name: _plain(value) for name, value in record.items()} for record in made)
    return out.getvalue()


def state_words(row: Row) -> str:
    """>>> state_words(Row(0, {}, State.RUNNING, done=3, cells=7))
    'running 3 of 7 cells'
    """
    if row.state is State.RUNNING and row.cells:
        return f"running {row.done} of {row.cells} cells"
    return f"{row.state.value}: {row.words}" if row.words else row.state.value


def tally(rows: Sequence[Row]) -> str:
    """>>> tally([Row(0, {}, State.DONE), Row(1, {}, State.FAILED), Row(2, {}, State.DONE)])
    '2 done, 1 failed'
    """
    counts = {state: sum(row.state is state for row in rows) for state in State}
    ordered = (State.DONE, State.RUNNING, State.QUEUED, State.FAILED, State.OUT_OF_TIME, State.CANCELLED)
    return ", ".join(f"{counts[state]} {state.value}" for state in ordered if counts[state])


def shown(value: Any) -> str:
    """A cell of the table."""
    if value is None:
        return words.NONE
    if isinstance(value, float):
        return f"{value:.4g}"
    return words.setting(value)


def _column(name: str) -> str:
    """A parameter's; `parameters.seconds` for one that is named as a column of ours."""
    return name if name not in {*FIXED, "error"} else f"parameters.{name}"


def _free(name: str, record: Mapping[str, Any]) -> str:
    return name if name not in {*record, "error"} else f"metrics.{name}"


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, bool)) else value


def _sortable(value: Any) -> tuple[int, Any]:
    """Numbers before texts before the rest: no two kinds are ever compared."""
    if isinstance(value, (int, float)):
        return 0, value if not (isinstance(value, float) and math.isnan(value)) else math.inf
    return (1, value) if isinstance(value, str) else (2, json.dumps(value, sort_keys=True))
