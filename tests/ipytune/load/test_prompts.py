"""Bodies are valid JSON, as long as asked, and begin differently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipytune.endpoints import BadRequest
from ipytune.load.plan import Plan
from ipytune.load.prompts import Bodies, read_prompts


def _content(body: bytes) -> str:
    return str(json.loads(body)["messages"][0]["content"])


def test_a_generated_prompt_has_so_many_words_behind_a_prefix_of_its_own() -> None:
    bodies = Bodies(Plan(concurrency=(1,), prompt_words=40), "m", "run-0")
    one, other = _content(bodies.body(0)), _content(bodies.body(1))
    assert len(one.split()) == 41
    assert one.split()[0] != other.split()[0] and one.split()[1:] == other.split()[1:]
    assert one.split()[0] != _content(Bodies(Plan(concurrency=(1,)), "m", "run-1").body(0)).split()[0]


def test_the_body_streams_with_usage_and_pins_the_length() -> None:
    body = json.loads(Bodies(Plan(concurrency=(1,), output_tokens=9, options={"temperature": 0}), "m", "r").body(3))
    assert body["stream"] and body["stream_options"] == {"include_usage": True}
    assert (body["model"], body["max_tokens"], body["min_tokens"], body["ignore_eos"]) == ("m", 9, 9, True)
    assert body["temperature"] == 0


def test_completions_get_a_plain_prompt() -> None:
    body = json.loads(Bodies(Plan(concurrency=(1,), api="completions", prompt_words=3), "m", "r").body(0))
    assert len(body["prompt"].split()) == 4 and "messages" not in body


def test_lengths_of_a_trace_go_before_those_of_the_plan() -> None:
    bodies = Bodies(Plan(concurrency=(1,), prompt_words=3, output_tokens=5), "m", "r")
    body = bodies.body(0, words=50, tokens=8)
    assert len(_content(body).split()) == 51 and json.loads(body)["max_tokens"] == 8


def test_prompts_come_from_a_file_in_turn(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        '{"prompt": "say \\"hi\\""}\n'
        '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}\n'
        "a plain line\n",
        encoding="utf-8",
    )
    bodies = Bodies(Plan(concurrency=(1,), prompts=file, unique_prefix=False), "m", "r")
    assert _content(bodies.body(0)) == 'say "hi"' == _content(bodies.body(3))
    assert [m["content"] for m in json.loads(bodies.body(1))["messages"]] == ["s", "u"]
    assert _content(bodies.body(2)) == "a plain line"
    marked = json.loads(Bodies(Plan(concurrency=(1,), prompts=file), "m", "r").body(1))["messages"]
    assert marked[0]["content"] == "s" and marked[1]["content"].endswith("u") and marked[1]["content"] != "u"


@pytest.mark.parametrize("line", ['{"prompt": 3}', '{"messages": []}', '{"messages": [{"role": "user"}]}', "{"])
def test_a_line_without_a_prompt_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "p"
    file.write_text(f"fine\n{line}\n")
    with pytest.raises(BadRequest, match="Line 2"):
        read_prompts(file)


def test_conversations_do_not_go_to_the_completions_api(tmp_path: Path) -> None:
    file = tmp_path / "p"
    file.write_text('{"messages": [{"role": "user", "content": "u"}]}\n')
    with pytest.raises(BadRequest, match="conversations"):
        read_prompts(file, "completions")
