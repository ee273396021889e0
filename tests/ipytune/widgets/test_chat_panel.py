"""The chat panel: what buttons and code do, what is saved, and that no key and no raw HTML is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ipytune.endpoints import BadRequest, Endpoint, ModelNotFound, ServerFailed
from ipytune.endpoints.catalogue import register
from ipytune.mock import Behaviour, MockServer, start_mock
from ipytune.widgets import ChatPanel
from tests.browser.lab import until

SECRET = "typed-SECRET-4711"


def said(body: Mapping[str, Any]) -> str:
    return f"heard {body['messages'][-1]['content']}"


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with start_mock(Behaviour(models=("m",), text=said), process=False) as running:
        yield running


@pytest.fixture
def endpoint(mock: MockServer) -> Endpoint:
    return mock.endpoint("e")


def press(panel: ChatPanel, action: str, **fields: object) -> None:
    panel._on_message(panel, {"do": action, **fields}, [])


def sent(mock: MockServer) -> list[list[str]]:
    bodies = [request.body for request in mock.requests() if request.path.endswith("/completions")]
    return [[message["content"] for message in body["messages"]] for body in bodies]


def state_of(panel: ChatPanel) -> str:
    return json.dumps({name: repr(value) for name, value in panel.get_state().items() if not name.startswith("_")})


def test_an_answer_is_in_the_panel_and_returned(endpoint: Endpoint) -> None:
    panel = ChatPanel(endpoint)
    assert panel.ask("hi").text == "heard hi"
    assert [turn["text"] for turn in panel.turns] == ["heard hi"]
    assert not panel.busy and panel.live == {}
    assert ["Tokens", "2"] in panel.turns[0]["facts"]


def test_a_conversation_sends_earlier_turns_unless_it_is_off(endpoint: Endpoint, mock: MockServer) -> None:
    panel = ChatPanel(endpoint, system="be brief")
    panel.ask("one")
    panel.ask("two")
    panel.remember = False
    panel.ask("three")
    assert sent(mock)[1:] == [["be brief", "one", "heard one", "two"], ["be brief", "three"]]


def test_a_turn_is_edited_asked_again_and_brought_back(endpoint: Endpoint, mock: MockServer) -> None:
    panel = ChatPanel(endpoint)
    panel.ask("one")
    panel.ask("two")
    press(panel, "edit", number=panel.turns[0]["number"], prompt="uno")
    until(lambda: not panel.busy, "the new answer", 20)
    assert [turn["text"] for turn in panel.turns] == ["heard uno"]
    assert sent(mock)[-1] == ["uno"] and panel.undoable
    press(panel, "undo")
    assert [turn["prompt"] for turn in panel.turns] == ["one", "two"]
    assert panel.edit(-1).text == "heard two"
    assert sent(mock)[-1] == ["one", "heard one", "two"]
    press(panel, "clear")
    assert panel.turns == []
    press(panel, "undo")
    assert len(panel.turns) == 2
    with pytest.raises(BadRequest, match="no such turn"):
        panel.edit(5)


def test_settings_are_sent_and_wrong_ones_told_at_their_field(endpoint: Endpoint, mock: MockServer) -> None:
    panel = ChatPanel(endpoint, max_tokens=1)
    press(panel, "set", name="temperature", value="0.5")
    press(panel, "set", name="system", value="be brief")
    press(panel, "set", name="tools", value="not from a page")
    assert panel.ask("hi").text == "heard"
    body = mock.requests()[-1].body
    assert (body["temperature"], body["max_tokens"], body["messages"][0]["content"]) == (0.5, 1, "be brief")
    assert "tools" not in body
    assert "max_tokens" in panel.turns[0]["note"]
    press(panel, "set", name="temperature", value="hot")
    assert "no number" in panel.parameters[0]["error"]
    press(panel, "send", prompt="again")
    assert "Temperature" in panel.problem["why"] and not panel.busy
    with pytest.raises(BadRequest, match="Top p"):
        panel.set("top_p", 2)


def test_tools_and_probabilities_are_shown(endpoint: Endpoint) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    panel = ChatPanel(endpoint, tools=[tool], logprobs=True)
    answer = panel.ask("hi")
    assert [call.name for call in answer.tool_calls] == ["add"]
    assert panel.turns[0]["tools"][0][0] == "add" and "Nothing is run" in panel.turns[0]["note"]
    panel.set("tools", None)
    panel.ask("hi")
    assert panel.turns[1]["logprobs"]


def test_cancel_keeps_what_came_and_frees_the_panel(endpoint: Endpoint, mock: MockServer) -> None:
    mock.behave(hang_after=1)
    panel = ChatPanel(endpoint)
    press(panel, "send", prompt="hi")
    until(lambda: panel.written == "heard", "the first word", 20)
    with pytest.raises(BadRequest, match="still being written"):
        panel.send("again")
    press(panel, "cancel")
    until(lambda: not panel.busy, "the end", 20)
    assert panel.turns[0]["state"] == "cancelled" and panel.turns[0]["text"] == "heard"
    until(lambda: mock.stats().cancelled == 1, "the server's notice", 10)


def test_closing_a_panel_stops_what_it_asked_for(endpoint: Endpoint, mock: MockServer) -> None:
    mock.behave(hang_after=1)
    panel = ChatPanel(endpoint)
    panel.send("hi")
    until(lambda: mock.stats().tokens == 1, "the first word", 20)
    panel.close()
    until(lambda: mock.stats().cancelled == 1, "the server's notice", 10)


def test_a_failed_answer_is_shown_and_raised(endpoint: Endpoint, mock: MockServer) -> None:
    mock.behave(error_rate=1.0, error_status=501)
    panel = ChatPanel(endpoint)
    with pytest.raises(ServerFailed):
        panel.ask("hi")
    assert panel.turns[0]["problem"]["what"] and not panel.busy


def test_a_typed_key_is_used_and_is_nowhere_in_the_state() -> None:
    with start_mock(Behaviour(models=("m",), key=SECRET, repeat_key=True), process=False) as mock:
        panel = ChatPanel(Endpoint(name="e", base_url=mock.url, model="m"))
        press(panel, "key", value=SECRET)
        panel.ask("hi")
        assert panel.endpoints[0]["key"] == "key typed for this panel"
        mock.behave(error_rate=1.0, error_status=403)
        panel.send("again")
        until(lambda: not panel.busy, "the refusal", 20)
        everything = state_of(panel) + panel.static_html() + panel.static_text() + repr(vars(panel))
        assert panel.turns[1]["problem"] and SECRET not in everything
        mock.behave(error_rate=0.0)
        panel.set_key("")
        panel.send("without")
        until(lambda: not panel.busy, "the refusal", 20)
        assert "401" in panel.turns[2]["problem"]["what"] + panel.turns[2]["problem"]["why"]


def test_an_endpoint_can_be_typed(mock: MockServer) -> None:
    panel = ChatPanel()
    with pytest.raises(BadRequest, match="no endpoint"):
        panel.ask("hi")
    press(panel, "add", url=mock.url, model="", key=SECRET)
    until(lambda: len(panel.endpoints) == 1, "the endpoint", 20)
    assert panel.endpoints[0]["model"] == "m"  # the server's only one
    panel.ask("hi")
    assert SECRET not in state_of(panel)
    press(panel, "add", url="ftp://x", model="m")
    assert "http://" in panel.problem["why"]


def test_an_endpoint_can_be_a_word(
    mock: MockServer, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    with register(endpoint.model_copy(update={"name": "by-name"})):
        assert ChatPanel("by-name").ask("hi").text == "heard hi"
    assert ChatPanel([mock.url]).endpoints[0]["model"] == "m"


def test_several_models_are_listed_to_choose_from() -> None:
    with start_mock(Behaviour(models=("a", "b")), process=False) as mock, pytest.raises(ModelNotFound, match="a, b"):
        ChatPanel().add(Endpoint(name="", base_url=mock.url, model=""))


def test_a_wrong_option_is_refused_at_once(endpoint: Endpoint) -> None:
    with pytest.raises(BadRequest, match="Temperature"):
        ChatPanel(endpoint, temperature="warm")
    with pytest.raises(BadRequest, match="messages"):
        ChatPanel(endpoint, messages=[])


def test_model_output_is_escaped_in_the_static_picture(mock: MockServer, endpoint: Endpoint) -> None:
    panel = ChatPanel(endpoint)
    panel.ask("<img/src=x/onerror=alert(1)>")
    assert "<img" not in panel.static_html() and "&lt;img" in panel.static_html()
