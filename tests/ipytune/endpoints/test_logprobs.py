"""Log-probabilities are read in the form of chats and in that of completions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipytune.endpoints import Client, Endpoint, TokenLogprob
from ipytune.endpoints.logprobs import read_logprobs
from tests.ipytune.endpoints.mock_server import DONE, Mock, delta, event, stream

USER = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ()),
        ({"content": None}, ()),
        ({"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []}]}, (TokenLogprob("a", -0.5),)),
        (
            {
                "content": [
                    {
                        "token": "a",
                        "logprob": -1,
                        "top_logprobs": [{"token": "a", "logprob": -1}, {"token": "b", "logprob": -0.25}],
                    }
                ]
            },
            (TokenLogprob("a", -1.0, (("b", -0.25), ("a", -1.0))),),
        ),
        (
            {"tokens": ["a", "b"], "token_logprobs": [None, -2], "top_logprobs": [None, {"b": -2, "c": -1}]},
            (TokenLogprob("a", None), TokenLogprob("b", -2.0, (("c", -1.0), ("b", -2.0)))),
        ),
        ({"tokens": ["a", "b"], "token_logprobs": [-1]}, (TokenLogprob("a", -1.0), TokenLogprob("b", None))),
    ],
)
def test_both_forms(value: object, expected: tuple[TokenLogprob, ...]) -> None:
    assert read_logprobs(value) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text("ab"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "tokens", "token_logprobs", "top_logprobs", "token", "logprob"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(json_values)
def test_nothing_that_a_server_sends_breaks_the_reader_or_is_no_number(value: object) -> None:
    for token in read_logprobs(value):
        assert token.logprob is None or not math.isnan(token.logprob)


async def test_a_streamed_answer_collects_them(endpoint: Endpoint, mock: Mock) -> None:
    def token(text: str, number: float) -> bytes:
        entry = {"token": text, "logprob": number, "top_logprobs": [{"token": text, "logprob": number}]}
        return event({"choices": [{"delta": {"content": text}, "logprobs": {"content": [entry]}}]})

    mock.replies(stream(token("a", -0.1), token("b", -0.2), delta(finish_reason="stop"), DONE))
    async with Client() as client:
        answer = await client.ask(endpoint, USER, logprobs=True, top_logprobs=1)
    assert [(each.token, each.logprob) for each in answer.logprobs] == [("a", -0.1), ("b", -0.2)]
    assert mock.requests[0].body["logprobs"] is True


async def test_a_completion_has_text_and_logprobs(endpoint: Endpoint, mock: Mock) -> None:
    logprobs = {"tokens": ["Once", " more"], "token_logprobs": [None, -1.5], "top_logprobs": [None, {" more": -1.5}]}
    mock.replies(
        stream(
            event({"choices": [{"text": "Once more", "logprobs": logprobs, "finish_reason": None}]}),
            event({"choices": [{"text": "!", "finish_reason": "length"}]}),
            DONE,
        )
    )
    async with Client() as client:
        answer = await client.complete(endpoint, "Once", echo=True, logprobs=1, max_tokens=2)
    assert answer.text == "Once more!" and answer.finish_reason == "length"
    assert answer.logprobs == (TokenLogprob("Once", None), TokenLogprob(" more", -1.5, ((" more", -1.5),)))
    assert mock.requests[0].path == "/v1/completions" and mock.requests[0].body["prompt"] == "Once"
    assert "messages" not in mock.requests[0].body
