"""Chat and comparison: what buttons and code do, what is saved, and that no key and no raw HTML is in it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from ipytune.endpoints import BadRequest, Endpoint, ModelNotFound, ServerFailed
from ipytune.widgets import ChatPanel, ComparePanel
from tests.browser.lab import until
from tests.ipytune.endpoints.mock_server import Mock, mock_server, reply, words

SECRET = "typed-SECRET-4711"


@pytest.fixture
def mock() -> Iterator[Mock]:
    with mock_server() as running:
        yield running


@pytest.fixture
def endpoint(mock: Mock) -> Endpoint:
    return Endpoint(name="e", base_url=mock.url, model="m")


def state_of(panel: ChatPanel | ComparePanel) -> str:
    return json.dumps({name: repr(value) for name, value in panel.get_state().items() if not name.startswith("_")})


def test_an_answer_is_in_the_panel_and_returned(endpoint: Endpoint) -> None:
    panel = ChatPanel(endpoint)
    assert panel.ask("hi").text == "hello there"
    assert [turn["text"] for turn in panel.turns] == ["hello there"]
    assert not panel.busy and panel.live == {}
    assert ["Tokens", "2"] in panel.turns[0]["facts"]


def test_a_conversation_sends_earlier_turns_unless_it_is_off(endpoint: Endpoint, mock: Mock) -> None:
    panel = ChatPanel(endpoint, system="be brief")
    panel.ask("one")
    panel.ask("two")
    assert [m["content"] for m in mock.requests[1].body["messages"]] == ["be brief", "one", "hello there", "two"]
    panel.remember = False
    panel.ask("three")
    assert [m["content"] for m in mock.requests[2].body["messages"]] == ["be brief", "three"]


def test_cancel_keeps_what_came_and_frees_the_panel(endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(words("one two", threading.Event()))
    panel = ChatPanel(endpoint)
    panel._on_message(panel, {"do": "send", "prompt": "hi"}, [])
    until(lambda: panel.live.get("text") == "one", "the first word", 5)
    with pytest.raises(BadRequest, match="still being written"):
        panel.send("again")
    panel._on_message(panel, {"do": "cancel"}, [])
    until(lambda: not panel.busy, "the end", 5)
    assert panel.turns[0]["state"] == "cancelled" and panel.turns[0]["text"] == "one"
    assert mock.client_left.wait(5)


def test_a_failed_answer_is_shown_and_raised(endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(reply(500, {"error": "boom"}))
    panel = ChatPanel(endpoint)
    with pytest.raises(ServerFailed):
        panel.ask("hi")
    assert "boom" in panel.turns[0]["problem"]["why"] and not panel.busy


def test_a_typed_key_is_used_and_is_nowhere_in_the_state(endpoint: Endpoint, mock: Mock) -> None:
    panel = ChatPanel(endpoint)
    panel._on_message(panel, {"do": "key", "value": SECRET}, [])
    panel.ask("hi")
    assert mock.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert panel.endpoints[0]["key"] == "key typed for this panel"
    assert SECRET not in state_of(panel) + panel.static_html() + panel.static_text() + repr(vars(panel))
    panel.set_key("")
    panel.ask("hi")
    assert "authorization" not in mock.requests[1].headers


def test_an_endpoint_can_be_typed(mock: Mock) -> None:
    panel = ChatPanel()
    with pytest.raises(BadRequest, match="no endpoint"):
        panel.ask("hi")
    panel._on_message(panel, {"do": "add", "url": mock.url, "model": "", "key": SECRET}, [])
    until(lambda: len(panel.endpoints) == 1, "the endpoint", 5)
    assert panel.endpoints[0]["model"] == "m"  # the server's only one
    panel.ask("hi")
    assert SECRET not in state_of(panel)
    panel._on_message(panel, {"do": "add", "url": "ftp://x", "model": "m"}, [])
    assert "http://" in panel.problem["why"]


def test_several_models_are_listed_to_choose_from(mock: Mock) -> None:
    mock.models = ("a", "b")
    with pytest.raises(ModelNotFound, match="a, b"):
        ChatPanel().add(Endpoint(name="", base_url=mock.url, model=""))


def test_model_output_is_escaped_in_the_static_picture(endpoint: Endpoint, mock: Mock) -> None:
    mock.replies(words("<img/src=x/onerror=alert(1)>"))
    chat, both = ChatPanel(endpoint), ComparePanel([endpoint, endpoint])
    chat.ask("<b>prompt</b>")
    both.ask("<b>prompt</b>")
    for html in (chat.static_html(), both.static_html()):
        assert "<img" not in html and "<b>prompt" not in html and "&lt;img" in html


def test_answers_come_side_by_side_and_one_failure_leaves_the_other(endpoint: Endpoint, mock: Mock) -> None:
    mock.answer = lambda request: (
        words("fine") if request.body["model"] == "m" else reply(404, {"detail": "no such model"})
    )
    panel = ComparePanel([endpoint, endpoint.model_copy(update={"name": "other", "model": "x"})], system="s")
    good, bad = panel.ask("hi")
    assert (good.text, good.error) == ("fine", None)
    assert isinstance(bad.error, ModelNotFound)
    assert [column["state"] for column in panel.columns] == ["done", "failed"]
    assert "same time" in panel.note and not panel.busy
    assert mock.requests[0].body["messages"][0]["content"] == "s"


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_comparison_takes_two_to_four(endpoint: Endpoint, count: int) -> None:
    with pytest.raises(ValueError, match="two to four"):
        ComparePanel([endpoint] * count)
