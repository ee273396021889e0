"""What counts as a token: not a role, not the usage; but reasoning and tool calls."""

from __future__ import annotations

import json

import pytest

from ipytune.load.events import UnreadableEvent, read_event


def _delta(**fields: object) -> str:
    return json.dumps({"id": "x", "choices": [{"index": 0, "delta": fields}]})


@pytest.mark.parametrize(
    ("data", "token", "output"),
    [
        (_delta(content="a"), True, True),
        (_delta(content=" "), True, True),
        (_delta(role="assistant", content=""), False, False),
        (_delta(role="assistant", content=None), False, False),
        (_delta(reasoning_content="hm"), True, False),
        (_delta(reasoning="hm"), True, False),
        (_delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]), True, True),
        (_delta(), False, False),
        (json.dumps({"choices": [{"index": 0, "text": "a"}]}), True, True),
        (json.dumps({"choices": [{"index": 0, "text": ""}]}), False, False),
        (json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}), False, False),
        (json.dumps({"choices": [None]}), False, False),
        ("{}", False, False),
    ],
)
def test_tokens(data: str, token: bool, output: bool) -> None:
    event = read_event(data)
    assert (event.token, event.output) == (token, output)


def test_the_usage_is_read_with_or_without_choices() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    assert read_event(json.dumps({"choices": [], "usage": usage}))[3:5] == (3, 5)
    last = {"choices": [{"delta": {"content": "a"}, "finish_reason": "length"}], "usage": usage}
    event = read_event(json.dumps(last))
    assert (event.token, event.finish_reason, event.completion_tokens) == (True, "length", 5)
    assert read_event(json.dumps({"choices": [], "usage": {"completion_tokens": True}})).completion_tokens is None


def test_the_end_and_an_error_are_told_apart() -> None:
    assert read_event("[DONE]").done
    assert read_event(" [DONE]").done
    assert read_event('{"error": {"message": "out of memory"}}').error == {"message": "out of memory"}


@pytest.mark.parametrize("data", ["", "{", "[]", "3", "null", "[" * 100_000])
def test_what_is_no_event_is_refused(data: str) -> None:
    with pytest.raises(UnreadableEvent):
        read_event(data)
