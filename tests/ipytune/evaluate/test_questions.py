"""Questions from all layouts; what cannot be asked or scored is told with its line, before anything is paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ipytune.data.findings import DatasetError
from ipytune.data.read import Example, Message
from ipytune.evaluate.questions import Question, Questions, read_questions


def user(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": text},)


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "expected": "a"},
        {"prompt": [{"role": "user", "content": "q"}], "expected": "a"},
        {"messages": [{"role": "user", "content": "q"}], "expected": "a"},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"prompt": "q", "completion": "a"},
        {"instruction": "q", "output": "a"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    ],
)
def test_every_layout_gives_the_same_question(tmp_path: Path, row: dict[str, Any]) -> None:
    assert read_questions(lines(tmp_path / "d.jsonl", row), needing=["exact"]) == [Question(1, user("q"), "a")]


def test_tables_and_rows_in_python_are_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    (tmp_path / "d.csv").write_text('prompt,expected\n"q, q",1\nr,2\n')
    assert [q.expected for q in read_questions(tmp_path / "d.csv")] == ["1", "2"]
    frame = pandas.DataFrame({"prompt": ["q", "r"], "expected": [1, None]})
    assert [q.expected for q in read_questions(frame)] == ["1.0", None]
    assert read_questions([{"prompt": "q", "expected": {"a": [1]}}])[0].expected == '{"a": [1]}'
    example = Example(7, (Message("user", "q"), Message("assistant", "a")))
    assert read_questions([example]) == [Question(7, user("q"), "a")]


def test_parquet_is_read(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"prompt": ["q"], "completion": ["a"]})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "d.parquet")
    assert read_questions(tmp_path / "d.parquet") == [Question(1, user("q"), "a")]


def test_a_system_prompt_goes_before_questions_that_bring_none(tmp_path: Path) -> None:
    own = {"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "r"}], "expected": "a"}
    rows = [own, {"messages": [{"role": "user", "content": "q"}], "expected": "a"}]
    found = read_questions(lines(tmp_path / "d.jsonl", *rows), system="given")
    assert [question.messages[0]["content"] for question in found] == ["own", "given"]
    table = read_questions([{"prompt": "q", "system": "own", "expected": "a"}], system="given")
    assert table[0].messages[0] == {"role": "system", "content": "own"}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "q"}, "no expected answer, which the scorer exact needs"),
        ({"prompt": " ", "expected": "a"}, "message 1 is empty"),
        ({"prompt": None, "expected": "a"}, "`prompt` is not there"),
        ({"prompt": 3, "expected": "a"}, "`prompt` is not text but int"),
        ({"prompt": "q", "expected": "a", "scorer": "exakt"}, "Did you mean exact"),
        ({"prompt": "q", "scorer": "json"}, "which the scorer json needs"),
        ({"prompt": [{"role": "assistant", "content": "q"}], "expected": "a"}, "no message of the user stands last"),
        ({"prompt": "q", "expected": "a", "tools": [1]}, "tools"),
        ({"text": "q"}, "no layout has these columns"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_with_its_line(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(DatasetError, match=told.replace("(", r"\(")) as error:
        read_questions(lines(tmp_path / "d.jsonl", row), needing=["exact"])
    assert error.value.findings[0].file.name == "d.jsonl"


def test_all_bad_rows_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "q", "expected": "a"}\n{"prompt": "q"}\n{torn\n{"prompt": "", "expected": "a"}\n')
    with pytest.raises(DatasetError) as error:
        read_questions(path, needing=["exact"])
    assert [finding.line for finding in error.value.findings] == [2, 3, 4]


def test_no_rows_and_no_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no questions"):
        read_questions([])
    with pytest.raises(FileNotFoundError):
        read_questions(tmp_path / "absent.jsonl")
    with pytest.raises(ValueError, match="holds no rows"):
        read_questions(3)


def test_a_limit_takes_always_the_same(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "expected": "a"} for i in range(50)]
    chosen = read_questions(rows, limit=7)
    assert len(chosen) == 7 and chosen == read_questions(rows, limit=7)


def test_the_file_gives_them_one_after_another_and_by_number(tmp_path: Path) -> None:
    written = [Question(i, user(f"q{i} \u2028 é"), str(i), None) for i in range(5)]
    questions = Questions.write_aside(tmp_path / "questions.jsonl", written)
    assert not (tmp_path / "questions.jsonl").exists()
    questions.put_at(tmp_path / "questions.jsonl")
    assert list(questions) == written and questions[3] == written[3] and len(questions) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["questions.jsonl"]
