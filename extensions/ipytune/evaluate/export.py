"""An evaluation as CSV, as JSON and as text. Rows are read and written one after another."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

from ipytune.evaluate import verdicts
from ipytune.evaluate.result import Cell, Evaluation
from ipytune.evaluate.scorers.score import Score, clipped

_SHOWN = 5  # failures in the text form
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(evaluation: Evaluation, path: Path) -> Path:
    """A row for each answer: line, question, expected, endpoint, repeat, answer, problem, then two columns a scorer.

    A text that a spreadsheet would run as a formula gets an apostrophe before it; the JSON form has it as it was.
    """
    with _aside(path) as file:
        writer = csv.writer(file)
        scorers = [column for name in evaluation.scorers for column in (name, f"{name} (detail)")]
        writer.writerow(
            ["line", "question", "expected", "endpoint", "repeat", "answer", "problem", "output_tokens", "seconds"]
            + [_harmless(column) for column in scorers]
        )
        for row in evaluation.rows():
            for cell in row.cells:
                found: list[object] = []
                for name in evaluation.scorers:
                    score = cell.scores.get(name)
                    if isinstance(score, Score):
                        found += [score.value, _harmless(score.detail)]
                    else:
                        found += ["", _harmless(score or "")]
                writer.writerow(
                    [row.question.line, _harmless(row.question.text), _harmless(row.question.expected or "")]
                    + [_harmless(cell.endpoint), cell.repeat, _harmless(cell.text), _harmless(str(cell.problem or ""))]
                    + [cell.output_tokens, "" if cell.seconds is None else f"{cell.seconds:.3f}", *found]
                )
    return path


def write_json(evaluation: Evaluation, path: Path) -> Path:
    """What evaluation.json has, summaries, comparisons, verdicts, rows: [{line, messages, expected, answers: […]}]."""
    head = {
        **evaluation.info,
        "summaries": [asdict(found) for found in evaluation.summaries],
        "comparisons": [asdict(found) for found in evaluation.comparisons],
        "verdicts": list(evaluation.verdicts),
    }
    with _aside(path) as file:
        file.write(json.dumps(head, indent=1)[:-2] + ',\n "rows": [')
        for place, row in enumerate(evaluation.rows()):
            item = {
                "line": row.question.line,
                "messages": list(row.question.messages),
                "expected": row.question.expected,
                "answers": [_plain(cell) for cell in row.cells],
            }
            file.write(("," if place else "") + "\n  " + json.dumps(item))
        file.write("\n ]\n}\n")
    return path


def text(evaluation: Evaluation) -> str:
    """A table of the results, the verdicts, and the first failures."""
    head = ["", *evaluation.scorers]
    cells = {(found.endpoint, found.scorer): verdicts.result(found) for found in evaluation.summaries}
    lines = [
        head,
        *([name, *(cells.get((name, scorer), "–") for scorer in evaluation.scorers)] for name in evaluation.endpoints),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    table = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    failures = [
        f"line {row.question.line}: {clipped(row.question.text, 60)}  "
        + "  ".join(f"[{cell.endpoint}] {clipped(str(cell.problem or cell.text), 60)}" for cell in row.cells)
        for row in evaluation.rows("failures", _SHOWN)
    ]
    return "\n".join([*table, "", *evaluation.verdicts, *([""] if failures else []), *failures]).rstrip()


def _plain(cell: Cell) -> dict[str, object]:
    return {
        "endpoint": cell.endpoint,
        "repeat": cell.repeat,
        "text": cell.text,
        "finish_reason": cell.finish_reason,
        "output_tokens": cell.output_tokens,
        "seconds": cell.seconds,
        "problem": None if cell.problem is None else asdict(cell.problem),
        "scores": {
            name: asdict(score) if isinstance(score, Score) else {"error": score} for name, score in cell.scores.items()
        },
    }


def _harmless(value: str) -> str:
    if value.startswith(_FORMULA):
        try:
            float(value)
        except ValueError:
            return "'" + value
    return value


@contextmanager
def _aside(path: Path) -> Iterator[IO[str]]:
    """Written beside the path and renamed when whole; nothing is left behind otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A byte-order mark tells spreadsheets that CSV is UTF-8; JSON must not have one.
        with beside.open("w", encoding="utf-8-sig" if path.suffix == ".csv" else "utf-8", newline="") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
