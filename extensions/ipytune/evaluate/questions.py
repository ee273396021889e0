"""Questions to evaluate on: read and validated before anything is paid for, then kept in the evaluation's directory.

Data is what training reads (`ipytune.data`: messages, prompt and completion, Alpaca, ShareGPT; the last answer is the
expected one), or rows with a `prompt` (or `messages` that end with the user) and, as the scorers need it, `expected`
and `scorer`. A file, a data frame, a data set, a list of dicts, or conversations that a run held out.
"""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ipytune.data.findings import DatasetError, Finding, Unusable, in_order
from ipytune.data.formats import Record, read_records
from ipytune.data.layouts import Message, choose, to_messages
from ipytune.data.read import Example, columns_of
from ipytune.data.rows import iterate
from ipytune.evaluate.exact import sample
from ipytune.evaluate.scorers.named import row_scorer

_ROWS = Path("rows")  # stands for the file where the data lives in Python
_OURS = {"expected", "scorer"}


@dataclass(frozen=True)
class Question:
    """line: where it stands in the data, from 1.   messages: what is sent.   expected, scorer: None where not given."""

    line: int
    messages: tuple[dict[str, str], ...]
    expected: str | None = None
    scorer: str | None = None

    @property
    def text(self) -> str:
        """The last words of the user."""
        return self.messages[-1]["content"]


def read_questions(
    data: Any, *, system: str | None = None, limit: int | None = None, needing: Sequence[str] = ()
) -> list[Question]:
    """The questions of `data`.

    system: put before every question that brings no system message.   limit: a sample, spread over the data and always
    the same.   needing: names of scorers that need an expected answer.
    Raises DatasetError with every finding, FileNotFoundError, and ValueError for what holds no rows.
    """
    path, records, findings = _records(data)
    questions: list[Question] = []
    if records and not any(finding.line == 0 for finding in findings):
        columns = columns_of(records)
        try:
            layout = _layout(columns)
        except Unusable as unusable:
            findings.append(Finding(path, 0, unusable.what, unusable.remedy))
        else:
            for record in records:
                try:
                    questions.append(_question(record, layout, needing))
                except Unusable as unusable:
                    findings.append(Finding(path, record.line, unusable.what, unusable.remedy))
    if not questions and not findings:
        findings.append(Finding(path, 0, "no questions", "Give at least one row"))
    if findings:
        raise DatasetError(in_order(findings))
    chosen = sample(questions, limit)
    return chosen if system is None else [_with_system(question, system) for question in chosen]


def by_row(questions: Iterable[Question]) -> bool:
    """Whether any row names a scorer of its own."""
    return any(question.scorer for question in questions)


class Questions:
    """The questions of an evaluation, in a file: read one after another while asking, or one by its number later."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError."""
        self.path = path
        self._offsets = array("Q")
        with path.open("rb") as file:
            offset = 0
            for line in file:
                self._offsets.append(offset)
                offset += len(line)

    @classmethod
    def write_aside(cls, path: Path, questions: Iterable[Question]) -> Questions:
        """Writes them beside `path`, where another evaluation may still be reading; see put_at()."""
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        with beside.open("w", encoding="utf-8") as file:
            for question in questions:
                file.write(json.dumps(asdict(question)) + "\n")
        return cls(beside)

    def put_at(self, path: Path) -> None:
        """Replaces the file at `path` as a whole."""
        self.path = self.path.replace(path)

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[Question]:
        with self.path.open("rb") as file:
            for line in file:
                yield _read(line)

    def __getitem__(self, number: int) -> Question:
        with self.path.open("rb") as file:
            file.seek(self._offsets[number])
            return _read(file.readline())


def _read(line: bytes) -> Question:
    values = json.loads(line)
    return Question(**{**values, "messages": tuple(values["messages"])})


def _records(data: Any) -> tuple[Path, list[Record], list[Finding]]:
    if isinstance(data, (str, Path)):
        path = Path(data).expanduser()
        return path, *read_records(path)
    records: list[Record] = []
    findings: list[Finding] = []
    for number, row in enumerate(iterate(data), start=1):
        if isinstance(row, Example):
            records.append(Record(row.line, {"messages": row.as_dicts()}))
        elif isinstance(row, Mapping):
            records.append(Record(number, {str(name): _present(value) for name, value in row.items()}))
        else:
            findings.append(Finding(_ROWS, number, f"{type(row).__name__}, not a row of columns", "Give dicts"))
    return _ROWS, records, findings


def _present(value: Any) -> Any:
    """None for NaN, which is how data frames say that nothing is there; lists for arrays."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.tolist() if hasattr(value, "tolist") else value


def _layout(columns: Sequence[str]) -> str:
    """`asked` when the columns hold what is asked and nothing else, else one of training's layouts. Raises Unusable."""
    if "prompt" in columns and not {"completion", "messages"} & set(columns):
        return "asked"
    if "messages" in columns and "expected" in columns:
        return "asked"
    try:
        return choose(columns, "auto", {})
    except Unusable as unusable:
        remedy = "Name the columns prompt and expected, or as training does (messages; prompt and completion)"
        raise Unusable(unusable.what, remedy) from None


def _question(record: Record, layout: str, needing: Sequence[str]) -> Question:
    row = record.values
    if layout == "asked":
        messages, expected = _asked(row), _text(row.get("expected"))
    else:
        conversation, _ = to_messages({name: row[name] for name in row if name not in _OURS}, layout)
        messages, expected = conversation, None
        if conversation and conversation[-1].role == "assistant":
            messages, expected = conversation[:-1], conversation[-1].content
    if not messages or messages[-1].role != "user":
        raise Unusable("nothing is asked: no message of the user stands last", "End the prompt with the user's words")
    if empty := [number for number, message in enumerate(messages, start=1) if not message.content.strip()]:
        raise Unusable(f"message {empty[0]} is empty", "Fill it in, or remove the row")
    word = row.get("scorer") or None
    names = list(needing)
    if word is not None:
        try:
            own = row_scorer(str(word))
        except ValueError as error:
            raise Unusable(str(error).rstrip("."), "Change the row's scorer, or leave it empty") from None
        names = [own.name] if own.needs_expected else []
    if expected is None and names:
        raise Unusable(f"no expected answer, which the scorer {names[0]} needs", "Give it in the column `expected`")
    return Question(
        record.line, tuple(message.as_dict() for message in messages), expected, None if word is None else str(word)
    )


def _asked(row: Mapping[str, Any]) -> tuple[Message, ...]:
    if "messages" in row:
        return to_messages({"messages": row["messages"]}, "messages")[0]
    prompt = row.get("prompt")
    if isinstance(prompt, list) or (isinstance(prompt, str) and prompt.startswith('[{"role"')):
        return to_messages({"messages": prompt}, "messages")[0]
    if not isinstance(prompt, str):
        kind = "is not there" if prompt is None else f"is not text but {type(prompt).__name__}"
        raise Unusable(f"`prompt` {kind}", "Give prompt as one string, or as a list of messages")
    conversation, _ = to_messages({**row, "prompt": prompt, "completion": "-"}, "prompt-completion")
    return conversation[:-1]


def _text(value: Any) -> str | None:
    """An expected answer as text: a number or a JSON value is written as JSON."""
    if value is None or isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise Unusable(f"`expected` is {type(value).__name__}", "Give it as text, a number or a JSON value") from None


def _with_system(question: Question, system: str) -> Question:
    if question.messages[0]["role"] == "system":
        return question
    messages = ({"role": "system", "content": system}, *question.messages)
    return Question(question.line, messages, question.expected, question.scorer)
