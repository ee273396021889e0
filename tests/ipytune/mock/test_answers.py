"""What a mock says, and in which form, over a real connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema
import pytest

from ipytune.mock import Behaviour, answering
from tests.ipytune.mock.talk import USER, Talk, parse, read_until

Serve = Callable[..., Talk]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "submit",
        "parameters": {
            "type": "object",
            "properties": {"nodes": {"type": "integer", "minimum": 1}, "queue": {"enum": ["gpu", "cpu"]}},
            "required": ["nodes", "queue"],
        },
    },
}


def test_a_stream_of_known_length_with_a_role_first_and_the_usage_last(serve: Serve) -> None:
    seen = serve(tokens=5).stream()
    assert seen.deltas[0] == {"role": "assistant", "content": ""}
    assert len(seen.text.split()) == 5 and seen.reasons == ["stop"] and seen.done
    assert seen.events[-1]["choices"] == []
    assert seen.usages == [{"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}]
    assert len({event["id"] for event in seen.events}) == 1 and {event["model"] for event in seen.events} == {"mock"}


def test_the_usage_comes_where_it_was_told_to(serve: Serve) -> None:
    talk = serve(tokens=3)
    assert talk.stream(usage=False).usages == []
    talk.server.behave(usage="last chunk")
    last = talk.stream(usage=False).events[-1]
    assert last["usage"]["completion_tokens"] == 3 and last["choices"][0]["finish_reason"] == "stop"
    talk.server.behave(usage="none")
    assert talk.stream().usages == []
    assert "usage" not in talk.post().json()


def test_without_a_stream_the_answer_is_one_body(serve: Serve) -> None:
    body = serve(tokens=4, reasoning_tokens=2).post().json()
    message = body["choices"][0]["message"]
    assert body["object"] == "chat.completion" and body["choices"][0]["finish_reason"] == "stop"
    assert len(message["content"].split()) == 4 and len(message["reasoning_content"].split()) == 2
    assert body["usage"]["completion_tokens"] == 6
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}


def test_several_tokens_in_one_event(serve: Serve) -> None:
    talk = serve(tokens=7, tokens_per_chunk=3, role_only=False)
    seen = talk.stream()
    assert [len(delta["content"].split()) for delta in seen.deltas if "content" in delta] == [3, 3, 1]
    assert seen.usages[0]["completion_tokens"] == 7
    assert talk.server.truth()[0].counts == (3, 3, 1)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_comes_before_the_answer(serve: Serve, field: str) -> None:
    talk = serve(tokens=2, reasoning_tokens=3, reasoning_field=field)
    deltas = talk.stream().deltas
    assert [field in delta for delta in deltas[1:6]] == [True, True, True, False, False]
    (truth,) = talk.server.truth()
    assert truth.reasoning == 3 and truth.first_output == truth.writes[3] and truth.tokens == 5


def test_comments_are_between_the_events(serve: Serve) -> None:
    talk = serve(tokens=3, comments=True)
    raw = talk.stream().raw
    assert raw.count(b": keep-alive\n\n") >= 3


def test_comments_come_while_nothing_else_does(serve: Serve) -> None:
    talk = serve(hang_before=True, comment_every=0.01)
    with talk.raw() as connection:
        seen = b""
        while seen.count(b": keep-alive") < 3:
            seen += connection.recv(65536)
    assert b'"content":"' not in seen.replace(b'"content":""', b"")


def test_lines_may_end_in_cr_lf(serve: Serve) -> None:
    seen = serve(tokens=3, crlf=True, comments=True).stream()
    assert b"\n" not in seen.raw.replace(b"\r\n", b"") and len(seen.text.split()) == 3 and seen.done


def test_a_character_arrives_in_two_reads(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = serve(text="Zürich", split_utf8=True, role_only=False)
    assert talk.stream().text == "Zürich"
    monkeypatch.setattr(answering, "_SPLIT", 3_600_000_000_000)
    with talk.raw() as connection:
        assert read_until(connection, b"Z\xc3").endswith(b"Z\xc3")


def test_the_answer_may_be_the_question_a_text_or_a_table(serve: Serve) -> None:
    talk = serve(Behaviour(echo=True, models=("base", "tuned"), answers={"1 + 1": "2", "3 + 3": {"tuned": "6"}}))

    def asked(model: str, words: str) -> str:
        text: str = talk.post(model=model, messages=[{"role": "user", "content": words}]).json()["choices"][0][
            "message"
        ]["content"]
        return text

    assert [asked("base", "1 + 1"), asked("base", "3 + 3"), asked("tuned", "3 + 3")] == ["2", "3 + 3", "6"]
    talk.server.behave(text="always this", answers=None)
    assert asked("base", "1 + 1") == "always this"


def test_in_a_thread_a_function_may_answer(serve: Serve) -> None:
    def shout(body: Mapping[str, Any]) -> str:
        return str(body["messages"][-1]["content"]).upper()

    assert serve(text=shout).stream().text == "TWO NODES PLEASE"


def test_parts_of_a_message_are_its_text(serve: Serve) -> None:
    parts = [
        {"type": "text", "text": "two "},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "nodes"},
    ]
    seen = serve(echo=True).stream(
        messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]
    )
    assert seen.text == "two nodes" and seen.usages[0]["prompt_tokens"] == 4


@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        ({"max_tokens": 2}, "one two", "length"),
        ({"max_completion_tokens": 1, "max_tokens": 4}, "one", "length"),
        ({"max_tokens": 3}, "one two three", "stop"),
        ({"stop": "three"}, "one two ", "stop"),
        ({"stop": ["x", " two"]}, "one", "stop"),
        ({"max_tokens": 5, "ignore_eos": True}, "one two three one two", "length"),
        ({"max_tokens": 9, "min_tokens": 4}, "one two three one", "stop"),
    ],
)
def test_the_length_is_as_asked(serve: Serve, fields: dict[str, Any], text: str, reason: str) -> None:
    seen = serve(text="one two three").stream(**fields)
    assert (seen.text, seen.reasons) == (text, [reason])


def test_one_request_may_have_its_own_behaviour(serve: Serve) -> None:
    talk = serve(tokens=5)
    assert len(talk.stream(mock={"tokens": 2}).text.split()) == 2
    assert len(talk.stream().text.split()) == 5
    refused = talk.post(mock={"tokens": "two"})
    assert refused.status_code == 400 and "tokens: 'two'" in refused.json()["error"]["message"]
    assert "whole server" in talk.post(mock={"models": ["x"]}).json()["error"]["message"]


def test_offered_tools_are_called_in_pieces(serve: Serve) -> None:
    talk = serve()
    seen = talk.stream(tools=[TOOL])
    calls = [delta["tool_calls"][0] for delta in seen.deltas if "tool_calls" in delta]
    assert calls[0]["function"]["name"] == "submit" and calls[0]["id"]
    assert len(calls) > 2 and {call["index"] for call in calls} == {0}
    arguments = json.loads("".join(call["function"]["arguments"] for call in calls))
    assert arguments == {"nodes": 1, "queue": "gpu"} and seen.reasons == ["tool_calls"]
    (call,) = talk.post(tools=[TOOL]).json()["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == arguments


def test_no_tool_is_called_when_told_so_or_after_its_result(serve: Serve) -> None:
    talk = serve(tokens=2)
    result = [
        *USER,
        {"role": "assistant", "content": None},
        {"role": "tool", "tool_call_id": "call_0", "content": "ok"},
    ]
    assert talk.stream(tools=[TOOL], tool_choice="none").reasons == ["stop"]
    assert talk.stream(tools=[TOOL], messages=result).reasons == ["stop"]
    assert talk.stream(tools=[TOOL], mock={"tools": False}).reasons == ["stop"]


def test_a_chosen_tool_is_the_one_that_is_called(serve: Serve) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    chosen = {"type": "function", "function": {"name": "other"}}
    deltas = serve().stream(tools=[TOOL, other], tool_choice=chosen).deltas
    assert "other" in [d["tool_calls"][0]["function"].get("name") for d in deltas if "tool_calls" in d]


def test_a_schema_is_answered_with_an_instance(serve: Serve) -> None:
    schema = TOOL["function"]["parameters"]
    response_format = {"type": "json_schema", "json_schema": {"name": "job", "schema": schema}}
    answer = json.loads(serve().stream(response_format=response_format).text)
    jsonschema.validate(answer, schema)


def test_chat_logprobs_are_of_every_token(serve: Serve) -> None:
    seen = serve(tokens=3, tokens_per_chunk=2).stream(logprobs=True, top_logprobs=2)
    shown = [event["choices"][0]["logprobs"] for event in seen.events if event["choices"]]
    tokens = [token for part in shown if part for token in part["content"]]
    assert "".join(token["token"] for token in tokens) == seen.text and len(tokens) == 3
    assert all(token["logprob"] < 0 and len(token["top_logprobs"]) == 2 for token in tokens)
    assert all(bytes(token["bytes"]).decode() == token["token"] for token in tokens)


def test_text_completions_with_echo_and_logprobs_score_the_prompt(serve: Serve) -> None:
    talk = serve(text="yes indeed")
    body = talk.post("/v1/completions", prompt="is it", echo=True, logprobs=1, max_tokens=1).json()
    (choice,) = body["choices"]
    assert choice["text"] == "is ityes" and body["object"] == "text_completion"
    assert choice["logprobs"]["tokens"] == ["is", " it", "yes"]
    assert choice["logprobs"]["token_logprobs"][0] is None and choice["logprobs"]["top_logprobs"][0] is None
    assert choice["logprobs"]["text_offset"] == [0, 2, 5]


def test_text_completions_stream(serve: Serve) -> None:
    seen = serve(text="yes indeed").stream("/v1/completions", prompt=["is it"], max_tokens=8, logprobs=0)
    texts = [event["choices"][0]["text"] for event in seen.events if event["choices"]]
    assert "".join(texts) == "yes indeed" and seen.reasons == ["stop"] and seen.done
    shown = [event["choices"][0]["logprobs"] for event in seen.events if event["choices"]]
    assert [part["text_offset"] for part in shown if part] == [[0], [3]]
    assert len(serve(tokens=99).post("/v1/completions", prompt=[1, 2]).json()["choices"][0]["text"].split()) == 16


def test_models_are_listed_and_others_are_unknown(serve: Serve) -> None:
    talk = serve(Behaviour(models=("base", "tuned")))
    assert [model["id"] for model in talk.http.get("/v1/models").json()["data"]] == ["base", "tuned"]
    assert talk.http.get("/v1/models/tuned").json()["id"] == "tuned"
    assert talk.http.get("/v1/models/none").status_code == 404
    refused = talk.post(model="none")
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found" and "`none`" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"n": 2}, "n"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {}}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"model": None}, "model"),
    ],
)
def test_a_wrong_field_is_named(serve: Serve, fields: dict[str, Any], param: str) -> None:
    response = serve().post(**fields)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_request_is_refused_and_the_connection_kept(serve: Serve, raw: bytes) -> None:
    talk = serve()
    assert talk.http.post("/v1/chat/completions", content=raw).status_code == 400
    assert talk.post().status_code == 200
    assert talk.server.stats().connections == 2  # ours, and the one that asks


def test_what_is_not_there_says_so(serve: Serve) -> None:
    talk = serve()
    assert talk.http.get("/chat/completions").status_code == 404
    wrong = talk.http.get("/v1/chat/completions")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
    assert talk.http.get("/health").status_code == 200


def test_two_requests_sent_at_once_are_answered_one_after_the_other(serve: Serve) -> None:
    talk = serve(tokens=2)
    body = json.dumps({"model": "mock", "messages": USER}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    with talk.raw() as connection:
        connection.sendall(request + last)
        seen = b""
        while data := connection.recv(65536):
            seen += data
    assert seen.count(b"HTTP/1.1 200 OK") == 3
    assert parse(seen.partition(b"0\r\n\r\n")[0]).done


def test_an_old_client_gets_no_chunks(serve: Serve) -> None:
    talk = serve(text="hello")
    body = json.dumps({"model": "mock", "messages": USER, "stream": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
    with talk.raw() as connection:
        read_until(connection, b"0\r\n\r\n")
        connection.sendall(head + body)
        seen = b""
        while data := connection.recv(65536):
            seen += data
    answer = seen.partition(b"\r\n\r\n")
    assert b"chunked" not in answer[0] and parse(answer[2]).text == "hello"
