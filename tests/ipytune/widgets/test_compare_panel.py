"""The comparison panel: columns, blind votes, history, exports; what its state tells, and what it must not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ipytune.compare.blind import Lots
from ipytune.endpoints import BadRequest, Endpoint, ModelNotFound
from ipytune.mock import Behaviour, MockServer, start_mock
from ipytune.widgets import ComparePanel
from tests.browser.lab import until

SECRET = "typed-SECRET-4712"
TURNED = next(seed for seed in range(50) if Lots(seed).sitting(2, True).order == (1, 0))
# The models' names are in no answer: what an answer itself says cannot be hidden.
MODELS = ("model-one", "model-two")


def said(body: Mapping[str, Any]) -> str:
    return f"{'first' if body['model'] == MODELS[0] else 'second'} heard {body['messages'][-1]['content']}"


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with start_mock(Behaviour(models=MODELS, text=said), process=False) as running:
        yield running


@pytest.fixture
def pair(mock: MockServer) -> list[Endpoint]:
    return [mock.endpoint("alpha", MODELS[0]), mock.endpoint("beta", MODELS[1])]


def press(panel: ComparePanel, action: str, **fields: object) -> None:
    panel._on_message(panel, {"do": action, **fields}, [])


def columns_of(panel: ComparePanel) -> str:
    """Everything in the state but the list of endpoints, which is in their order and tells nothing."""
    hidden = ("endpoints", "_esm", "_css", "layout")
    return json.dumps({name: repr(value) for name, value in panel.get_state().items() if name not in hidden})


def test_answers_come_side_by_side_and_one_failure_leaves_the_other(pair: list[Endpoint], mock: MockServer) -> None:
    panel = ComparePanel([pair[0], mock.endpoint("other", "missing")], system="s")
    good, bad = panel.ask("hi")
    assert (good.text, good.error) == ("first heard hi", None)
    assert isinstance(bad.error, ModelNotFound)
    assert [column["state"] for column in panel.columns] == ["done", "failed"]
    assert "same time" in panel.note and not panel.busy
    assert mock.requests()[0].body["messages"][0]["content"] == "s"


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_comparison_takes_two_to_four(mock: MockServer, count: int) -> None:
    with pytest.raises(ValueError, match="two to four"):
        ComparePanel([mock.endpoint()] * count)


def test_a_blind_state_does_not_tell_which_is_which_before_the_vote(pair: list[Endpoint], mock: MockServer) -> None:
    panel = ComparePanel(pair, "hi", blind=True, blind_seed=TURNED)
    seen: list[str] = []
    panel.observe(lambda change: seen.append(repr(change["new"])), names=["columns", "grown", "asked", "rounds"])
    views = panel.ask()
    everything = columns_of(panel) + panel.static_html() + panel.static_text() + repr(views) + "".join(seen)
    for telling in ("alpha", "beta", *MODELS, mock.url):
        assert telling not in everything
    assert [column["text"] for column in panel.columns] == ["second heard hi", "first heard hi"]
    assert [column["facts"] for column in panel.columns] == [[], []]
    assert panel.hidden and panel.choices[0] == ["A", "A is better"]

    press(panel, "vote", choice="A")
    assert [column["endpoint"] for column in panel.columns] == ["beta", "alpha"]
    assert panel.asked["vote"] == "A" and not panel.hidden and panel.choices == []
    assert ["Tokens", "3"] in panel.columns[0]["facts"]
    assert any(line.startswith("beta: preferred in 1 of 1") for line in panel.tally)
    assert "beta" in panel.static_html()


def test_names_are_shown_without_a_vote_on_request(pair: list[Endpoint]) -> None:
    panel = ComparePanel(pair, blind=True)
    panel.ask("hi")
    press(panel, "reveal")
    assert {column["endpoint"] for column in panel.columns} == {"alpha", "beta"}
    assert panel.tally == []
    panel.vote("tie")
    assert panel.tally[0] == "1 vote: 1 tied."


def test_blind_can_be_switched_on_and_off(pair: list[Endpoint]) -> None:
    panel = ComparePanel(pair)
    panel.ask("one")
    panel.blind = True
    panel.ask("two")
    assert panel.hidden and [round_["columns"][0]["endpoint"] for round_ in panel.rounds] == ["alpha"]
    panel.blind = False
    assert not panel.hidden and {column["endpoint"] for column in panel.columns} == {"alpha", "beta"}


def test_every_round_is_kept_and_an_earlier_one_can_be_asked_anew(pair: list[Endpoint], mock: MockServer) -> None:
    panel = ComparePanel(pair)
    for prompt in ("one", "two", "three"):
        panel.ask(prompt)
    assert [round_["prompt"] for round_ in panel.rounds] == ["one", "two"] and panel.asked["prompt"] == "three"
    press(panel, "edit", number=panel.rounds[1]["number"], prompt="zwei")
    until(lambda: not panel.busy, "the answers", 20)
    assert [round_["prompt"] for round_ in panel.rounds] == ["one"] and panel.asked["prompt"] == "zwei"
    contents = [[message["content"] for message in request.body["messages"]] for request in mock.requests()[-2:]]
    assert sorted(contents) == [["one", "first heard one", "zwei"], ["one", "second heard one", "zwei"]]
    press(panel, "undo")
    assert panel.asked["prompt"] == "three" and len(panel.rounds) == 2
    assert panel.columns[0]["text"] == "first heard three"


def test_a_cleared_panel_is_empty_and_comes_back(pair: list[Endpoint]) -> None:
    panel = ComparePanel(pair)
    panel.ask("hi")
    press(panel, "clear")
    assert panel.asked == {} and [column["text"] for column in panel.columns] == ["", ""]
    press(panel, "undo")
    assert panel.columns[1]["text"] == "second heard hi"


def test_cancel_keeps_what_came(pair: list[Endpoint], mock: MockServer) -> None:
    mock.behave(hang_after=1)
    panel = ComparePanel(pair)
    press(panel, "send", prompt="hi")
    until(lambda: panel.written == ["first", "second"], "the first words", 20)
    press(panel, "vote", choice="A")
    assert "still being written" in panel.problem["what"]
    press(panel, "cancel")
    until(lambda: not panel.busy, "the end", 20)
    assert [column["state"] for column in panel.columns] == ["cancelled"] * 2
    assert panel.written == ["first", "second"]
    until(lambda: mock.stats().cancelled == 2, "the server's notice", 10)


def test_settings_are_checked_at_their_field_and_sent_alike_to_all(pair: list[Endpoint], mock: MockServer) -> None:
    panel = ComparePanel(pair)
    press(panel, "set", name="max_tokens", value="many")
    press(panel, "set", name="repeat", value="99")
    assert "whole number" in next(f["error"] for f in panel.parameters if f["name"] == "max_tokens")
    assert "from 1 to 50" in panel.repeat["error"]
    with pytest.raises(BadRequest, match="Times"):
        panel.ask("hi")
    panel.set("max_tokens", 2)
    panel.set("repeat", 3)
    panel.set("system", "be brief")
    panel.ask("hi")
    bodies = [request.body for request in mock.requests()]
    assert len(bodies) == 6 and {body["max_tokens"] for body in bodies} == {2}
    assert {body["messages"][0]["content"] for body in bodies} == {"be brief"}
    assert panel.columns[0]["stability"] == "all 3 answers are the same"


def test_what_differs_is_shown_by_words(pair: list[Endpoint]) -> None:
    panel = ComparePanel(pair)
    panel.ask("hi")
    [found] = panel.differences
    assert found["title"].startswith("From alpha to beta")
    assert found["parts"] == [["del", "first "], ["ins", "second "], ["same", "heard hi"]]
    assert "<del>first </del><ins>second </ins>heard hi" in panel.static_html()


def test_exports_lie_beside_the_notebook_under_new_names(
    pair: list[Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    panel = ComparePanel(pair, temperature=0)
    panel.ask("hi")
    paths = []
    for form in ("json", "html", "json", "cell"):
        press(panel, "export", format=form)
        paths.append(panel.exported["path"])
    assert paths == ["comparison.json", "comparison.html", "comparison-2.json", "comparison.py"]
    assert panel.exported["code"] == (tmp_path / "comparison.py").read_text() == panel.to_cell()
    remade: dict[str, Any] = {"display": lambda shown: None}
    exec(panel.to_cell().replace("from IPython.display import display\n", ""), remade)
    assert [view.text for view in remade["panel"].ask("again")] == ["first heard again", "second heard again"]


def test_a_typed_key_is_used_and_is_nowhere() -> None:
    behaviour = Behaviour(models=MODELS, key=SECRET)
    with start_mock(behaviour, process=False) as mock:
        endpoints = [Endpoint(name=name, base_url=mock.url, model=MODELS[0]) for name in ("alpha", "beta")]
        panel = ComparePanel(endpoints)
        press(panel, "key", value=SECRET, endpoint="alpha")
        press(panel, "key", value=SECRET, endpoint="nobody")
        assert "no endpoint of this name" in panel.problem["what"]
        good, bad = panel.ask("hi")
        assert good.error is None and bad.error is not None
        assert [item["key"] for item in panel.endpoints] == ["key typed for this panel", "no key"]
        everything = json.dumps({name: repr(value) for name, value in panel.get_state().items()})
        assert SECRET not in everything + panel.static_html() + panel.static_text() + repr(vars(panel))
        assert SECRET not in panel.to_cell()


def test_what_people_and_models_wrote_is_escaped(pair: list[Endpoint]) -> None:
    panel = ComparePanel(pair)
    panel.ask("<img/src=x/onerror=alert(1)>")
    panel.ask("<b>more</b>")
    html = panel.static_html()
    assert "<img" not in html and "<b>more" not in html and "&lt;img" in html
