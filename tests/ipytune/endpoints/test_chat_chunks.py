"""Chunks are read as servers send them, and nothing that a server sends breaks the reader."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.endpoints.chunks import Chunk, UnreadableChunk, Usage, read_chunk


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"choices": [{"delta": {"role": "assistant"}}]}, Chunk()),
        ({"choices": [{"delta": {"content": "a"}}]}, Chunk(content="a")),
        ({"choices": [{"delta": {"content": None}, "finish_reason": "stop"}]}, Chunk(finish_reason="stop")),
        ({"choices": [{"delta": {"reasoning": "r"}}]}, Chunk(reasoning="r")),
        ({"choices": [{"delta": {"reasoning_content": "r"}}]}, Chunk(reasoning="r")),
        ({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}}, Chunk(usage=Usage(3, 7))),
        ({"choices": [{"delta": {}}], "usage": {"completion_tokens": 7}}, Chunk(usage=Usage(None, 7))),
        ({"choices": None, "usage": None}, Chunk()),
        ({"error": {"message": "out of memory"}}, Chunk(error="out of memory")),
        ({"error": "out of memory"}, Chunk(error="out of memory")),
    ],
)
def test_a_chunk_gives_what_it_adds(body: object, expected: Chunk) -> None:
    assert read_chunk(json.dumps(body)) == expected


def test_done_is_the_end() -> None:
    assert read_chunk("[DONE]").done


@pytest.mark.parametrize("data", ["", "no json", "[1]", "3", '{"error": "a "quote" inside"}'])
def test_what_is_no_chunk_is_said_to_be_unreadable(data: str) -> None:
    with pytest.raises(UnreadableChunk):
        read_chunk(data)


KEYS = ["delta", "content", "message", "error", "completion_tokens", "finish_reason", "other"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab{}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("choices", "usage", "error"), json_values)))
def test_odd_types_never_break_the_reader(body: dict[str, object]) -> None:
    assert isinstance(read_chunk(json.dumps(body)), Chunk)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("delta", "finish_reason", "index"), json_values)))
def test_odd_choices_never_break_the_reader(choice: dict[str, object]) -> None:
    assert isinstance(read_chunk(json.dumps({"choices": [choice]})), Chunk)
