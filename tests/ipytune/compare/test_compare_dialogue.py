"""A conversation with several at once: who remembers what, edits, undo, repeats, cancelling."""

from __future__ import annotations

import pytest

from ipytune.compare import Dialogue, Round, Terms
from ipytune.compare.dialogue import Asked, answer_of, follow, messages
from ipytune.endpoints import BadRequest, Endpoint, ModelNotFound
from ipytune.endpoints.exchange import Cancelled, State, View
from ipytune.mock import MockServer
from tests.ipytune.compare.conftest import asked


def hold(dialogue: Dialogue, prompt: str, endpoints: list[Endpoint], keep: int | None = None, **terms: object) -> Round:
    dialogue.begin(prompt, [Asked(item) for item in endpoints], Terms(**terms), keep=keep)  # type: ignore[arg-type]
    follow(lambda: 0.01 if dialogue.look() is not None and dialogue.busy else None, dialogue.cancel, 20)
    return dialogue.rounds[-1]


def texts(item: Round) -> list[list[str]]:
    return [[view.text for view in takes] for takes in item.takes]


def test_every_column_remembers_its_own_answers(pair: list[Endpoint], mock: MockServer) -> None:
    dialogue = Dialogue()
    hold(dialogue, "one", pair, system="s")
    assert texts(hold(dialogue, "two", pair, system="s")) == [["base heard two"], ["tuned heard two"]]
    assert asked(mock, "base")[1] == ["s", "one", "base heard one", "two"]
    assert asked(mock, "tuned")[1] == ["s", "one", "tuned heard one", "two"]


def test_an_edit_replaces_what_followed_and_undo_brings_it_back(pair: list[Endpoint], mock: MockServer) -> None:
    dialogue = Dialogue()
    for prompt in ("one", "two", "three"):
        hold(dialogue, prompt, pair)
    hold(dialogue, "zwei", pair, keep=1)
    assert [item.prompt for item in dialogue.rounds] == ["one", "zwei"]
    assert asked(mock, "base")[-1] == ["one", "base heard one", "zwei"]
    dialogue.undo()
    assert [item.prompt for item in dialogue.rounds] == ["one", "two", "three"]
    dialogue.clear()
    assert dialogue.rounds == () and dialogue.undoable
    dialogue.undo()
    assert len(dialogue.rounds) == 3 and not dialogue.undoable
    with pytest.raises(BadRequest, match="nothing to undo"):
        dialogue.undo()


def test_what_was_asked_after_an_edit_is_not_lost_by_an_undo(pair: list[Endpoint]) -> None:
    dialogue = Dialogue()
    hold(dialogue, "one", pair)
    hold(dialogue, "uno", pair, keep=0)
    hold(dialogue, "due", pair)
    dialogue.undo()
    assert [item.prompt for item in dialogue.rounds] == ["one"] and dialogue.redoable
    dialogue.redo()
    assert [item.prompt for item in dialogue.rounds] == ["uno", "due"] and dialogue.undoable
    dialogue.undo()
    hold(dialogue, "two", pair)
    with pytest.raises(BadRequest, match="something was asked since"):
        dialogue.redo()


def test_numbers_are_never_given_twice(pair: list[Endpoint]) -> None:
    dialogue = Dialogue()
    first = hold(dialogue, "one", pair)
    second = hold(dialogue, "uno", pair, keep=0)
    assert second.number != first.number and dialogue.place(second.number) == 0
    with pytest.raises(BadRequest, match="no more"):
        dialogue.place(first.number)


def test_one_failing_column_leaves_the_other(pair: list[Endpoint], mock: MockServer) -> None:
    dialogue = Dialogue()
    found = hold(dialogue, "hi", [pair[0], mock.endpoint("x", "missing")], repeat=2)
    assert texts(found)[0] == ["base heard hi"] * 2
    [failed] = found.takes[1]  # who fails is not asked again
    assert isinstance(failed.error, ModelNotFound)
    with pytest.raises(ModelNotFound):
        answer_of(failed)


def test_a_broken_answer_is_left_out_of_its_own_column_only(pair: list[Endpoint], mock: MockServer) -> None:
    dialogue = Dialogue()
    hold(dialogue, "one", [pair[0], mock.endpoint("tuned", "missing")])
    hold(dialogue, "two", pair)
    assert asked(mock, "base")[-1] == ["one", "base heard one", "two"]
    assert asked(mock, "tuned")[-1] == ["two"]


def test_cancel_stops_the_servers_and_asks_nothing_more(stalled: MockServer, pair: list[Endpoint]) -> None:
    dialogue = Dialogue()
    slow = stalled.endpoint("slow")
    dialogue.begin("hi", [Asked(slow), Asked(slow)], Terms(repeat=5))
    seen = dialogue.look()
    while seen is None or any(takes[0].text != "one" for takes in seen.takes):
        seen = dialogue.look()
    with pytest.raises(BadRequest, match="still being written"):
        dialogue.begin("again", [Asked(slow)], Terms())
    dialogue.cancel()
    follow(lambda: 0.01 if dialogue.look() is not None and dialogue.busy else None, dialogue.cancel, 20)
    [first, second] = dialogue.rounds[-1].takes
    assert [view.state for view in (*first, *second)] == [State.CANCELLED] * 2
    assert (first[0].text, second[0].text) == ("one", "one")
    with pytest.raises(Cancelled):
        answer_of(first[0])
    follow(lambda: 0.01 if stalled.stats().cancelled < 2 else None, lambda: None, 10)


def test_the_timeout_cancels_and_keeps_what_came(stalled: MockServer) -> None:
    dialogue = Dialogue()
    with pytest.raises(TimeoutError, match="within"):
        dialogue.begin("hi", [Asked(stalled.endpoint())], Terms())
        follow(lambda: 0.01 if dialogue.look() is not None and dialogue.busy else None, dialogue.cancel, 0.5)
    assert not dialogue.busy and dialogue.rounds[-1].takes[0][0].state is State.CANCELLED


def test_an_interrupt_cancels_looks_a_last_time_and_goes_on_up() -> None:
    said: list[str] = []

    def look() -> float | None:
        said.append("look")
        if "cancel" not in said:
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        follow(look, lambda: said.append("cancel"), None)
    assert said == ["look", "cancel", "look"]


@pytest.mark.parametrize(("prompt", "count", "word"), [(" \n", 1, "empty"), ("hi", 0, "no endpoint")])
def test_nothing_is_sent_where_there_is_nothing_to_send(
    pair: list[Endpoint], prompt: str, count: int, word: str
) -> None:
    dialogue = Dialogue()
    with pytest.raises(BadRequest, match=word):
        dialogue.begin(prompt, [Asked(item) for item in pair[:count]], Terms())
    assert not dialogue.busy


def test_of_several_answers_the_first_whole_one_goes_on(pair: list[Endpoint]) -> None:
    [endpoint, _] = pair
    takes = tuple(
        View(endpoint, state, text)
        for state, text in [(State.CANCELLED, "cut"), (State.DONE, ""), (State.DONE, "whole"), (State.DONE, "other")]
    )
    earlier = [Round(1, "one", (takes,))]
    assert [m["content"] for m in messages(earlier, 0, "two", "")] == ["one", "whole", "two"]
    assert [m["content"] for m in messages(earlier, 7, "two", "")] == ["two"]
