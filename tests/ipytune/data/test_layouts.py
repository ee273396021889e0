"""Columns become conversations; what is not beyond doubt is asked for, with the setting to write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ipytune.data.findings import Unusable
from ipytune.data.layouts import LAYOUTS, choose, guess, to_messages
from ipytune.data.read import read
from ipytune.lora.config import DataSettings

ASKED, SAID = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def said(values: dict[str, Any], layout: str, columns: dict[str, str] | None = None) -> list[tuple[str, str]]:
    messages, _ = to_messages(values, layout, columns)
    return [(message.role, message.content) for message in messages]


@pytest.mark.parametrize(
    ("columns", "layout", "mapping"),
    [
        (["id", "messages"], "messages", {}),
        (["prompt", "completion", "source"], "prompt-completion", {}),
        (["instruction", "input", "output"], "alpaca", {}),
        (["instruction", "output"], "alpaca", {}),
        (["conversations", "id"], "sharegpt", {}),
        (["question", "answer"], "prompt-completion", {"prompt": "question", "completion": "answer"}),
        (["Prompt", "Response"], "prompt-completion", {"prompt": "Prompt", "completion": "Response"}),
        (["instruction", "context", "response"], "alpaca", {"output": "response", "input": "context"}),
        (["dialog"], "messages", {"messages": "dialog"}),
    ],
)
def test_a_layout_is_guessed_by_its_columns(columns: list[str], layout: str, mapping: dict[str, str]) -> None:
    guessed = guess(columns)
    assert (guessed.layout, guessed.columns, guessed.certain) == (layout, mapping, not mapping)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (["text"], "no layout has these columns"),
        ([], "no layout has these columns"),
        (["messages", "prompt", "completion"], "several layouts: messages, prompt-completion"),
        (["prompt", "chosen", "rejected"], "preferences"),
    ],
)
def test_what_cannot_be_guessed_has_a_reason(columns: list[str], reason: str) -> None:
    assert guess(columns).layout is None
    assert reason in guess(columns).reason


@given(st.lists(st.sampled_from([n for one in LAYOUTS.values() for n in one.names] + ["id", "answer", "chat"])))
def test_what_is_guessed_can_be_chosen(columns: list[str]) -> None:
    guessed = guess(columns)
    if guessed.layout is not None:
        assert choose(columns, guessed.layout, guessed.columns) == guessed.layout


def test_the_remedy_for_other_names_is_a_setting_that_works() -> None:
    with pytest.raises(Unusable) as raised:
        choose(["question", "answer"], "auto", {})
    setting = yaml.safe_load(raised.value.remedy.split("`")[1])["data"]
    assert choose(["question", "answer"], **{"layout": setting["layout"], "mapping": setting["columns"]})
    with pytest.raises(Unusable, match=r"columns: text, id.*messages needs messages; prompt-completion needs"):
        choose(["text", "id"], "auto", {})


@pytest.mark.parametrize(
    ("columns", "layout", "mapping", "what"),
    [
        (["a"], "auto", {"prompt": "b"}, "names b, which the file does not have"),
        (["messages"], "messages", {"prompt": "messages"}, "maps prompt, which the layout messages does not have"),
        (["prompt"], "prompt-completion", {}, "needs completion"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(
    columns: list[str], layout: str, mapping: dict[str, str], what: str
) -> None:
    with pytest.raises(Unusable, match=what):
        choose(columns, layout, mapping)


def test_mapped_columns_are_recognised_with_auto() -> None:
    assert choose(["q", "a"], "auto", {"prompt": "q", "completion": "a"}) == "prompt-completion"


def test_prompt_and_completion() -> None:
    assert said({"prompt": "q", "completion": "a"}, "prompt-completion") == [("user", "q"), ("assistant", "a")]
    mapped = said(
        {"x": "q", "y": "a", "s": "be short"}, "prompt-completion", {"prompt": "x", "completion": "y", "system": "s"}
    )
    assert mapped == [("system", "be short"), ("user", "q"), ("assistant", "a")]


def test_a_prompt_that_is_a_conversation_is_given_and_not_learned() -> None:
    messages, given_ = to_messages({"prompt": [ASKED, SAID, ASKED], "completion": [SAID]}, "prompt-completion")
    assert [message.role for message in messages] == ["user", "assistant", "user", "assistant"]
    assert given_ == 3
    assert said({"prompt": [ASKED], "completion": "a"}, "prompt-completion") == [("user", "q"), ("assistant", "a")]


def test_alpaca_joins_instruction_and_input() -> None:
    row = {"instruction": "add", "input": "1, 2", "output": "3"}
    assert said(row, "alpaca") == [("user", "add\n\n1, 2"), ("assistant", "3")]
    assert (
        said(row | {"input": ""}, "alpaca")
        == said(row | {"input": None}, "alpaca")
        == [
            ("user", "add"),
            ("assistant", "3"),
        ]
    )


def test_sharegpt_names_its_speakers_otherwise() -> None:
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "be short"}
    assert said(row, "sharegpt") == [("system", "be short"), ("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(
    ("values", "layout", "what"),
    [
        ({"prompt": "q", "completion": 3}, "prompt-completion", "`completion` is not text but int"),
        ({"prompt": "q"}, "prompt-completion", "`completion` is not there"),
        ({"messages": [ASKED, SAID], "tools": [{}]}, "messages", "column 'tools' holds tools"),
        ({"messages": [ASKED, SAID], "images": [b"x"]}, "messages", "images, sound or video"),
        ({"conversations": [{"from": "observation", "value": "x"}]}, "sharegpt", "tools are not learned"),
        ({"instruction": "a", "output": "b", "history": [["q", "a"]]}, "alpaca", "an earlier conversation"),
        ({"messages": "[{"}, "messages", "a text that is not JSON"),
    ],
)
def test_what_would_be_lost_or_is_no_text_is_refused(values: dict[str, Any], layout: str, what: str) -> None:
    with pytest.raises(Unusable, match=what) as raised:
        to_messages(values, layout)
    assert raised.value.remedy


def test_columns_that_are_there_and_empty_do_no_harm() -> None:
    row = {"messages": [{**ASKED, "tool_calls": None}, {**SAID, "weight": 1}], "tools": None, "images": []}
    assert said(row, "messages") == [("user", "q"), ("assistant", "a")]


def test_a_conversation_in_a_cell_of_a_table(tmp_path: Path) -> None:
    cell = json.dumps([ASKED, SAID]).replace('"', '""')
    (tmp_path / "a.csv").write_text(f'id,messages\n1,"{cell}"\n')
    (example,), findings = read(tmp_path / "a.csv")
    assert findings == []
    assert (example.line, example.as_dicts()) == (2, [ASKED, SAID])


def test_a_file_whose_columns_are_unknown_is_one_finding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\n" + "q,a\n" * 5)
    examples, (finding,) = read(tmp_path / "a.csv")
    assert examples == []
    assert (finding.line, "look like prompt-completion" in finding.what) == (0, True)
    settings = DataSettings(columns={"prompt": "question", "completion": "answer"})
    assert len(read(tmp_path / "a.csv", settings)[0]) == 5
