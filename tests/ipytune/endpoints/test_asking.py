"""What is asked is passed on as it is, or refused before anything is sent, with the field and the remedy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ipytune.endpoints import BadRequest, Client, Endpoint
from ipytune.endpoints.asking import chat_body, completion_body, encoded
from tests.ipytune.endpoints.mock_server import Mock

ENDPOINT = Endpoint(name="e", base_url="http://127.0.0.1:9", model="m")
USER = [{"role": "user", "content": "hi"}]


def test_options_are_passed_on_and_none_is_left_out() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    body = chat_body(ENDPOINT, USER, {"temperature": None, "seed": 0, "response_format": schema, "top_k": 5, "n": 1})
    assert body == {
        "model": "m",
        "messages": USER,
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 0,
        "response_format": schema,
        "top_k": 5,
        "n": 1,
    }
    assert completion_body(ENDPOINT, "Once", {"echo": True})["prompt"] == "Once"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 2}, "n=2 asks for several"),
        ({"best_of": 4}, "best_of=4"),
        ({"stream": False}, "always streamed"),
        ({"model": "other"}, "model is no option"),
    ],
)
def test_what_could_not_be_read_back_is_refused(options: dict[str, Any], words: str) -> None:
    for body in (lambda: chat_body(ENDPOINT, USER, options), lambda: completion_body(ENDPOINT, "Once", options)):
        with pytest.raises(BadRequest, match=words) as caught:
            body()
        assert caught.value.remedy


@pytest.mark.parametrize("messages", [[], "hi", {"role": "user"}, ["hi"]])
def test_what_is_no_list_of_messages_is_refused(messages: Any) -> None:
    with pytest.raises(BadRequest, match="nothing to ask"):
        chat_body(ENDPOINT, messages, {})


@pytest.mark.parametrize(
    ("value", "words"),
    [({1, 2}, "no JSON"), (float("nan"), "no JSON"), (object(), "no JSON"), ("\ud83d", "half a character")],
)
def test_what_json_cannot_hold_is_named_by_its_field(value: object, words: str) -> None:
    with pytest.raises(BadRequest, match=f"odd holds .*{words}"):
        encoded({"model": "m", "odd": value})


def test_text_is_sent_as_it_is() -> None:
    assert json.loads(encoded({"a": "Zürich 🏔 \x00"})) == {"a": "Zürich 🏔 \x00"}


async def test_nothing_is_sent_when_it_is_refused(endpoint: Endpoint, mock: Mock) -> None:
    async with Client() as client:
        with pytest.raises(BadRequest):
            await client.ask(endpoint, USER, n=3)
        with pytest.raises(BadRequest):
            await client.ask(endpoint, USER, logit_bias={1, 2})
    assert mock.requests == []
