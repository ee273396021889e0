"""What was paid for is found again, whatever happened to the process that wrote it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipytune.endpoints import Endpoint
from ipytune.evaluate.ledger import InUse, Ledger, Problem, Record, content_key, read_answer, shared_cache

ENDPOINT = Endpoint(name="e", base_url="http://127.0.0.1:9", model="m", key_env="A_KEY")
MESSAGES = [{"role": "user", "content": "q"}]


def record(number: int, text: str = "text", **changes: object) -> Record:
    key = content_key(ENDPOINT, MESSAGES, {}, number)
    made = Record(key=key, purpose="answer", endpoint="e", url=ENDPOINT.api_root, model="m", repeat=number, text=text)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_key_is_that_of_the_content() -> None:
    key = content_key(ENDPOINT, MESSAGES, {"a": 1, "b": 2}, 0)
    assert key == content_key(ENDPOINT.model_copy(update={"name": "other"}), MESSAGES, {"b": 2, "a": 1}, 0)
    assert key == content_key(
        ENDPOINT.model_copy(update={"base_url": "http://127.0.0.1:9/v1"}), MESSAGES, {"a": 1, "b": 2}, 0
    )
    others = [
        content_key(ENDPOINT.model_copy(update={"model": "n"}), MESSAGES, {"a": 1, "b": 2}, 0),
        content_key(ENDPOINT, [{"role": "user", "content": "r"}], {"a": 1, "b": 2}, 0),
        content_key(ENDPOINT, MESSAGES, {"a": 1, "b": 3}, 0),
        content_key(ENDPOINT, MESSAGES, {"a": 1, "b": 2}, 1),
    ]
    assert len({key, *others}) == 5


@given(st.text(max_size=50), st.text(max_size=20))
def test_a_record_is_read_as_it_was_written(text: str, why: str) -> None:
    written = record(1, text, problem=Problem("TimedOut", "what", why))
    line = written.line()
    assert line.count(b"\n") == 1 and Record.read(line) == written


@given(st.binary(max_size=60))
def test_any_other_line_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        Record.read(line)


def test_answers_are_found_again_and_errors_are_not(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "answers.jsonl")
    ledger.append(record(1, "one"))
    ledger.append(record(2, problem=Problem("TimedOut", "late")))
    ledger.close()
    again = Ledger(tmp_path / "answers.jsonl")
    assert len(again) == 1 and record(1).key in again
    assert again.get(record(1).key) == record(1, "one")
    assert again.get(record(2).key) is None and again.place(record(2).key) is None
    place = again.place(record(1).key)
    assert place is not None and read_answer(tmp_path / "answers.jsonl", place).text == "one"
    again.close()


@settings(max_examples=40)
@given(st.data())
def test_a_line_torn_at_any_byte_costs_that_answer_only(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "answers.jsonl"
    last = record(2, "two é").line()
    cut = data.draw(st.integers(0, len(last) - 1))
    path.write_bytes(record(1, "one").line() + last[:cut])
    ledger = Ledger(path)
    assert len(ledger) == 1
    ledger.append(record(2, "new"))
    ledger.append(record(3, "three"))
    ledger.close()
    again = Ledger(path)
    assert [again.get(record(n).key).text for n in (1, 2, 3)] == ["one", "new", "three"]  # type: ignore[union-attr]
    again.close()


def test_a_spoiled_line_in_the_middle_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(record(1).line() + b"\x00\x00{garbage\n" + record(2).line())
    ledger = Ledger(path)
    assert len(ledger) == 2
    ledger.close()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "answers.jsonl")
    with pytest.raises(InUse, match="Another process is evaluating"):
        Ledger(tmp_path / "answers.jsonl")
    ledger.append(record(1))
    ledger.close()
    Ledger(tmp_path / "answers.jsonl").close()


def test_a_cache_is_shared_by_runs_at_once_and_leaves_no_empty_files(tmp_path: Path) -> None:
    one, other = shared_cache(tmp_path), shared_cache(tmp_path)
    one.append(record(1))
    one.close()
    other.close()
    third = shared_cache(tmp_path)
    assert record(1).key in third
    third.close()
    assert len(list(tmp_path.iterdir())) == 1
