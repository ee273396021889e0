"""Calls of tools come out whole however a server cuts and numbers their pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipytune.endpoints import Client, Endpoint, ToolCall
from ipytune.endpoints.tool_calls import ToolCalls, ToolDelta, read_tool_deltas
from tests.ipytune.endpoints.mock_server import DONE, Mock, delta, event, stream, usage

USER = [{"role": "user", "content": "hi"}]


def whole(*chunks: list[dict[str, object]]) -> tuple[ToolCall, ...]:
    calls = ToolCalls()
    for chunk in chunks:
        for part in read_tool_deltas(chunk):
            calls.add(part)
    return calls.whole()


def part(index: int | None = None, id: str | None = None, **function: object) -> dict[str, object]:
    fields = {"index": index, "id": id, "type": "function", "function": function}
    return {name: value for name, value in fields.items() if value is not None}


def test_two_calls_whose_pieces_are_mixed() -> None:
    assert whole(
        [part(0, "a", name="add", arguments=""), part(1, "b", name="sub", arguments="")],
        [part(1, arguments='{"y"'), part(0, arguments='{"x": ')],
        [part(0, arguments="1}"), part(1, arguments=": 2}")],
    ) == (ToolCall("a", "add", '{"x": 1}'), ToolCall("b", "sub", '{"y": 2}'))


def test_every_call_at_index_zero_is_told_apart_by_id_and_name() -> None:
    first, second = part(0, "a", name="add", arguments="{}"), part(0, "b", name="sub", arguments="{}")
    assert whole([first], [second]) == (ToolCall("a", "add", "{}"), ToolCall("b", "sub", "{}"))


def test_another_id_at_every_piece_makes_no_new_call() -> None:
    pieces = [[part(0, "a", name="add", arguments="")], [part(0, "b", arguments="{")], [part(0, "c", arguments="}")]]
    assert whole(*pieces) == (ToolCall("a", "add", "{}"),)


def test_without_an_index_the_place_counts_and_an_object_becomes_json() -> None:
    [call] = whole([part(id="a", name="add", arguments={"x": 1})])
    assert json.loads(call.arguments) == {"x": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab{}"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["index", "id", "function", "name", "arguments"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(json_values)
def test_nothing_that_a_server_sends_breaks_the_reader(value: object) -> None:
    calls = ToolCalls()
    for each in read_tool_deltas(value):
        calls.add(each)
    assert all(isinstance(call, ToolCall) for call in calls.whole())


@settings(deadline=None)
@given(st.text("ab{}:", max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_arguments_are_the_same_however_they_are_cut(arguments: str, cuts: list[int]) -> None:
    places = sorted(min(cut, len(arguments)) for cut in cuts)
    pieces = [arguments[a:b] for a, b in zip([0, *places], [*places, len(arguments)], strict=True)]
    calls = ToolCalls()
    calls.add(ToolDelta(0, "a", "f"))
    for piece in pieces:
        calls.add(ToolDelta(0, arguments=piece))
    assert calls.whole() == (ToolCall("a", "f", arguments),)


async def test_a_streamed_call_is_in_the_answer_and_counts_as_its_first_token(endpoint: Endpoint, mock: Mock) -> None:
    def tools(*parts: dict[str, object]) -> bytes:
        return event({"choices": [{"index": 0, "delta": {"tool_calls": list(parts)}}]})

    mock.replies(
        stream(
            delta(role="assistant"),
            tools(part(0, "call_1", name="weather", arguments="")),
            tools(part(0, arguments='{"city": ')),
            tools(part(0, arguments='"Bern"}')),
            delta(finish_reason="tool_calls"),
            usage(9),
            DONE,
        )
    )
    offered = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    kinds = []
    async with Client() as client, client.stream(endpoint, USER, tools=offered, tool_choice="auto") as answering:
        async for piece in answering:
            kinds.append((piece.kind, piece.text))
    answer = answering.answer
    assert answer.tool_calls == (ToolCall("call_1", "weather", '{"city": "Bern"}'),)
    assert answer.text == "" and answer.finish_reason == "tool_calls"
    assert kinds == [("tool", "weather"), ("tool", '{"city": '), ("tool", '"Bern"}')]
    assert answer.metrics.ttft is not None and answer.metrics.ttfot == answer.metrics.ttft
    assert mock.requests[0].body["tools"] == offered and mock.requests[0].body["tool_choice"] == "auto"


@pytest.mark.parametrize("value", [None, "x", [1, None], [{"function": "f"}], [{"index": -1}]])
def test_odd_forms_add_nothing_that_is_wrong(value: object) -> None:
    assert all(each.index >= 0 for each in read_tool_deltas(value))
