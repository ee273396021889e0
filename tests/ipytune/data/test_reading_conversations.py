"""What is wrong with a data set is found before training, with file, line and remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.data.findings import DatasetError
from ipytune.data.read import Example, Message, read_jsonl
from ipytune.data.validate import load

USER = {"role": "user", "content": "2 nodes"}
ANSWER = {"role": "assistant", "content": "--nodes=2"}
SYSTEM = {"role": "system", "content": "short"}


def line(*messages: object) -> str:
    return json.dumps({"messages": messages})


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    return tmp_path / "train.jsonl"


def test_good_conversations_keep_their_line_numbers(train_file: Path) -> None:
    train_file.write_text(f"\ufeff{line(USER, ANSWER)}\n\n{line(SYSTEM, USER, ANSWER, USER, ANSWER)}\n")
    examples, findings = read_jsonl(train_file)
    assert findings == []
    assert examples[0] == Example(1, (Message("user", "2 nodes"), Message("assistant", "--nodes=2")))
    assert [example.line for example in examples] == [1, 3]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"messages": [', "not JSON"),
        (b'{"messages": "\xff"}', "not UTF-8 at byte"),
        (b'["messages"]', "not an object with columns, but a list"),
        (b'{"messages": "hello"}', "no list `messages`"),
        (line({"role": "tool", "content": "x"}).encode(), "tools are not learned"),
        (line({"role": "assistant", "content": None, "tool_calls": [{}]}).encode(), "has tool_calls: tools"),
        (line({"role": "user", "content": [{"type": "image_url"}]}).encode(), "holds image_url"),
        (line(USER, {**ANSWER, "reasoning_content": "hm"}).encode(), "reasoning apart"),
        (line(USER, {**ANSWER, "weight": 0}).encode(), "a weight of 0"),
        (b"[" * 100_000, "nested too deeply"),
        (line("hi").encode(), "message 1 is not an object"),
        (line({"role": "boss", "content": "x"}).encode(), "role 'boss'"),
        (line({"content": "x"}).encode(), "role None"),
        (line({"role": "user"}).encode(), "no content"),
        (line({"role": "user", "content": [{"type": "text"}]}).encode(), "not text but list"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        (line().encode(), "no messages"),
        (line(USER).encode(), "no assistant message"),
        (line({"role": "user", "content": " \n"}, ANSWER).encode(), "message 1 (user) is empty"),
        (line(ANSWER, USER).encode(), "message 1 is from assistant, expected user"),
        (line(USER, USER, ANSWER).encode(), "message 2 is from user, expected assistant"),
        (line(USER, ANSWER, SYSTEM, ANSWER).encode(), "second system message"),
        (line(USER, ANSWER, USER).encode(), "has no answer"),
        (line(SYSTEM).encode(), "no assistant message"),
    ],
)
def test_a_bad_line_is_named_with_its_remedy(train_file: Path, content: bytes, what: str) -> None:
    train_file.write_bytes(line(USER, ANSWER).encode() + b"\n" + content + b"\n")
    with pytest.raises(DatasetError) as raised:
        load(train_file)
    (finding,) = raised.value.findings
    assert (finding.file, finding.line) == (train_file, 2)
    assert what in finding.what
    assert finding.remedy


def test_all_bad_lines_are_found_at_once(train_file: Path) -> None:
    train_file.write_text("\n".join(["{", line(USER), line(USER, ANSWER), "[]"]))
    with pytest.raises(DatasetError) as raised:
        load(train_file)
    assert [finding.line for finding in raised.value.findings] == [1, 2, 4]


def test_an_empty_file_is_an_error(train_file: Path) -> None:
    train_file.write_text("\n")
    with pytest.raises(DatasetError, match="no conversation in the file"):
        load(train_file)


def test_a_repeated_conversation_is_a_warning(train_file: Path) -> None:
    train_file.write_text(line(USER, ANSWER) + "\n" + line(USER, ANSWER))
    dataset = load(train_file)
    assert [(warning.line, warning.what) for warning in dataset.warnings] == [(2, "same conversation as line 1")]


def test_white_space_makes_no_other_conversation(train_file: Path, tmp_path: Path) -> None:
    spaced = {"role": "user", "content": " 2\n nodes "}
    train_file.write_text(line(USER, ANSWER) + "\n" + line(spaced, ANSWER))
    assert [warning.line for warning in load(train_file).warnings] == [2]
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(line(spaced, {"role": "assistant", "content": "other"}))
    with pytest.raises(DatasetError, match="the same question"):
        load(train_file, held_out)


def test_a_held_out_question_that_is_trained_on_is_an_error(train_file: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.jsonl"
    train_file.write_text(line(USER, ANSWER))
    held_out.write_text(line(USER, {"role": "assistant", "content": "another answer"}))
    with pytest.raises(DatasetError, match=r"held_out.jsonl:1: the same question is in the training data"):
        load(train_file, held_out)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "any.jsonl"
    path.write_bytes(content)
    examples, findings = read_jsonl(path)
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert len(examples) + len(findings) == sum(bool(line.strip()) for line in lines)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner),
    max_leaves=12,
)


@given(JSON)
def test_no_json_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, messages: object) -> None:
    path = tmp_path_factory.mktemp("any") / "any.jsonl"
    path.write_text(json.dumps({"messages": messages}))
    examples, findings = read_jsonl(path)
    assert len(examples) + len(findings) == 1
