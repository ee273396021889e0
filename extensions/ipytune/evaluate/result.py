"""The result of an evaluation: its directory, read. Reports can be made later and in another form, nothing is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ipytune.evaluate import analysis, verdicts
from ipytune.evaluate.analysis import Comparison, Summary
from ipytune.evaluate.ledger import Problem, read_answer
from ipytune.evaluate.plan import QUESTIONS
from ipytune.evaluate.progress import ColumnProgress
from ipytune.evaluate.questions import Question, Questions
from ipytune.evaluate.scorers.score import Score
from ipytune.evaluate.sheet import Sheet

ANSWERS, SCORES, SUMMARY = "answers.jsonl", "scores.jsonl", "evaluation.json"
Which = Literal["all", "failures", "differences"]


@dataclass(frozen=True)
class Cell:
    """One endpoint's answer to one question. scores: by scorer; a text where the scorer failed, saying why."""

    endpoint: str
    repeat: int
    text: str
    scores: Mapping[str, Score | str]
    problem: Problem | None
    finish_reason: str | None = None
    output_tokens: int = 0
    seconds: float | None = None

    @property
    def failed(self) -> bool:
        """No answer, no score, or one that did not pass; for scores without such a line, below one half."""
        if self.problem is not None:
            return True
        return any(
            isinstance(score, str) or score.passed is False or (score.passed is None and score.value < 0.5)
            for score in self.scores.values()
        )


@dataclass(frozen=True)
class Row:
    """One question with the answers of all endpoints, those of repeats after one another."""

    number: int
    question: Question
    cells: tuple[Cell, ...]

    @property
    def failed(self) -> bool:
        return any(cell.failed for cell in self.cells)


class Evaluation:
    """See the module; made by `evaluate`, or from a directory with `Evaluation.open`."""

    def __init__(self, directory: Path, info: Mapping[str, Any], sheet: Sheet, questions: Questions) -> None:
        self.directory = directory
        self.info = info
        self.sheet = sheet
        self.questions = questions

    @classmethod
    def open(cls, directory: Path | str) -> Evaluation:
        """Raises FileNotFoundError for a directory without an evaluation, ValueError for files of another version."""
        directory = Path(directory).expanduser()
        if not (directory / SUMMARY).is_file():
            raise FileNotFoundError(f"{directory} holds no evaluation (no {SUMMARY}).")
        try:
            info = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
            names = [endpoint["name"] for endpoint in info["endpoints"]]
            sheet = Sheet(names, info["scorers"], info["questions"], info["repeats"])
            _fill(sheet, directory / SCORES)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"The evaluation in {directory} cannot be read ({error}). Run it again.") from None
        return cls(directory, info, sheet, Questions(directory / QUESTIONS))

    @property
    def state(self) -> str:
        """completed, stopped, failed; asking or judging for one that goes on or was killed."""
        return str(self.info["state"])

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self.sheet.endpoints

    @property
    def scorers(self) -> tuple[str, ...]:
        return self.sheet.scorers

    @property
    def columns(self) -> tuple[ColumnProgress, ...]:
        """How each endpoint went: answers, tokens, and why one was given up."""
        return tuple(_column(values) for values in self.info["columns"])

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        return analysis.summaries(self.sheet)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        return analysis.comparisons(self.sheet, self.info["pairwise"])

    @cached_property
    def verdicts(self) -> tuple[str, ...]:
        """A sentence for each comparison, then what a reader must know to trust the numbers."""
        return (*(verdicts.verdict(found) for found in self.comparisons), *self.notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """Rows without answer or score, endpoints that were given up, estimated tokens, an early end."""
        said = []
        if self.state not in ("completed", "failed"):
            said.append("Not all was asked: the evaluation was stopped. Run it again to go on; nothing is asked twice.")
        for column in self.columns:
            if column.problem is not None:
                said.append(f"{column.endpoint} was given up after {column.done} answers. {column.problem}")
            elif column.failed:
                said.append(f"{column.endpoint}: {column.failed} questions have no answer. Run it again to ask them.")
            if column.unscored:
                said.append(f"{column.endpoint}: {column.unscored} answers could not be scored; the rows say why.")
            if column.tokens_estimated:
                said.append(f"{column.endpoint}: the server counted no tokens; chunks were counted instead.")
        return tuple(said)

    def summary(self, endpoint: str, scorer: str | None = None) -> Summary:
        """Of one endpoint, by the first scorer unless another is named. Raises KeyError."""
        name = self.scorers[0] if scorer is None else scorer
        for found in self.summaries:
            if (found.endpoint, found.scorer) == (endpoint, name):
                return found
        raise KeyError(f"There is no score of {endpoint!r} by {name!r}.")

    def rows(self, which: Which = "all", limit: int | None = None) -> Iterator[Row]:
        """Questions with their answers, the worst first, read from the files one after another.

        failures: any answer missing, wrong or not scored.   differences: endpoints fare differently.
        """
        order = sorted(range(self.sheet.questions), key=lambda number: (self.sheet.worst(number), number))
        given = 0
        for number in order:
            if limit is not None and given >= limit:
                return
            if which == "differences" and not self.sheet.differs(number):
                continue
            if which == "failures" and not self.sheet.fails(number):
                continue
            row = self.row(number)
            if row.cells:
                given += 1
                yield row

    def row(self, number: int) -> Row:
        """One question, by its number from 0."""
        cells = (
            self._cell(endpoint, number, repeat)
            for repeat in range(self.sheet.repeats)
            for endpoint in range(len(self.endpoints))
        )
        return Row(number, self.questions[number], tuple(cell for cell in cells if cell is not None))

    def to_html(self, path: Path | str, limit: int = 500) -> Path:
        """One page that needs nothing else: failures first, at most `limit` questions; see report.py."""
        from ipytune.evaluate.report import page

        return _written(path, page(self, limit))

    def to_csv(self, path: Path | str) -> Path:
        """A row for each answer; see export.py."""
        from ipytune.evaluate.export import write_csv

        return write_csv(self, Path(path).expanduser())

    def to_json(self, path: Path | str) -> Path:
        """Everything, as one JSON document; see export.py."""
        from ipytune.evaluate.export import write_json

        return write_json(self, Path(path).expanduser())

    def __str__(self) -> str:
        from ipytune.evaluate.export import text

        return text(self)

    def __repr__(self) -> str:
        return f"<Evaluation of {', '.join(self.endpoints)} in {self.directory}: {self.state}>"

    def _repr_html_(self) -> str:
        from ipytune.evaluate.report import fragment

        return fragment(self)

    def _cell(self, endpoint: int, number: int, repeat: int) -> Cell | None:
        places = self.sheet.places(endpoint, number, repeat)
        if not places:
            return None
        scores: dict[str, Score | str] = {}
        place = problem = None
        with (self.directory / SCORES).open("rb") as file:
            for at in places:
                file.seek(at)
                line = json.loads(file.readline())
                scores |= {name: _score(value) for name, value in line["scores"].items()}
                place = line["answer"] if line["answer"] is not None else place
                problem = Problem(**line["problem"]) if line["problem"] is not None else problem
        name = self.endpoints[endpoint]
        if place is None:
            return Cell(name, repeat, "", scores, problem)
        record = read_answer(self.directory / ANSWERS, place)
        return Cell(
            name, repeat, record.text, scores, problem, record.finish_reason, record.output_tokens, record.seconds
        )


def _fill(sheet: Sheet, path: Path) -> None:
    """Reads the scores; what a killed run left half written at the end is left out."""
    place = 0
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            line = json.loads(raw)
            endpoint = sheet.endpoints.index(line["endpoint"])
            scores = [None if (v := line["scores"].get(name)) is None else _score(v) for name in sheet.scorers]
            if line["pair"]:
                for scorer, name in enumerate(sheet.scorers):
                    if name in line["scores"]:
                        sheet.put_pair(endpoint, line["question"], line["repeat"], scorer, scores[scorer], place)
            else:
                sheet.put(endpoint, line["question"], line["repeat"], scores, place, line["problem"] is None)
            place += len(raw)


def _score(value: Mapping[str, Any]) -> Score | str:
    return str(value["error"]) if "error" in value else Score(**value)


def _column(values: Mapping[str, Any]) -> ColumnProgress:
    problem = values["problem"]
    return ColumnProgress(**{**values, "problem": None if problem is None else Problem(**problem)})


def _written(path: Path | str, text: str) -> Path:
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
