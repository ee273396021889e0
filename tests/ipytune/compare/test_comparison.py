"""Comparing, blind or not: what is shown does not tell before it may; votes add up."""

from __future__ import annotations

import json

import pytest

from ipytune.compare import Comparison
from ipytune.compare.ballot import Vote, sentences, tally
from ipytune.compare.blind import Lots
from ipytune.compare.dialogue import follow
from ipytune.compare.export import as_data
from ipytune.endpoints import BadRequest, Endpoint
from ipytune.mock import MockServer
from tests.ipytune.compare.conftest import asked

# Seeds whose first draw leaves two columns as they are, and turns them round.
STRAIGHT = next(seed for seed in range(50) if Lots(seed).sitting(2, True).order == (0, 1))
TURNED = next(seed for seed in range(50) if Lots(seed).sitting(2, True).order == (1, 0))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_it_takes_two_to_four(mock: MockServer, count: int) -> None:
    with pytest.raises(ValueError, match="two to four"):
        Comparison([mock.endpoint()] * count)


def test_blind_columns_are_shuffled_and_nameless_until_the_vote(pair: list[Endpoint]) -> None:
    comparison = Comparison(pair, blind=True, blind_seed=TURNED)
    item = comparison.ask("hi", 20)
    assert comparison.names(item) == ("A", "B")
    seen = comparison.seen(item)
    assert [takes[0].text for takes in seen] == ["tuned heard hi", "base heard hi"]  # only the text tells
    assert [takes[0].endpoint.name for takes in seen] == [takes[0].endpoint.model for takes in seen] == ["A", "B"]
    assert all(takes[0].endpoint.base_url not in pair[0].base_url for takes in seen)
    assert all(takes[0].metrics.ttft is None for takes in seen)

    comparison.vote("a")
    assert comparison.names(item) == ("tuned", "base")
    assert comparison.shown_vote(item) == "A"
    assert [(standing.name, standing.wins) for standing in comparison.tally().standings] == [("base", 0), ("tuned", 1)]
    with pytest.raises(BadRequest, match="given blind"):
        comparison.vote("B")


def test_a_failure_does_not_tell_either(pair: list[Endpoint], mock: MockServer) -> None:
    comparison = Comparison([pair[0], mock.endpoint("secret", "missing")], blind=True)
    item = comparison.ask("hi", 20)
    failed = next(takes[0] for takes in comparison.seen(item) if takes[0].error is not None)
    assert "secret" not in repr(failed) and "missing" not in str(failed.error) and mock.url not in repr(failed)
    comparison.reveal()
    assert any("missing" in str(takes[0].error) for takes in comparison.seen(item))


def test_after_a_blind_vote_the_next_prompt_begins_a_new_shuffled_conversation(
    pair: list[Endpoint], mock: MockServer
) -> None:
    comparison = Comparison(pair, blind=True, blind_seed=STRAIGHT)
    first = comparison.ask("one", 20)
    second = comparison.ask("two", 20)
    assert not second.fresh and comparison.sitting(first) is comparison.sitting(second)  # sides stay in a conversation
    comparison.vote("tie")
    third = comparison.ask("three", 20)
    assert third.fresh and not comparison.sitting(third).revealed
    assert comparison.sitting(first).revealed
    assert asked(mock, "base")[-1] == ["three"]


def test_the_same_seed_draws_the_same_orders_and_all_orders_come_up() -> None:
    lots, again = Lots(7), Lots(7)
    drawn = [lots.sitting(3, True).order for _ in range(60)]
    assert drawn == [again.sitting(3, True).order for _ in range(60)]
    assert len(set(drawn)) == 6
    assert Lots().sitting(3, False).order == (0, 1, 2)


def test_a_conversation_is_remembered_unless_that_is_off_or_a_new_one_was_begun(
    pair: list[Endpoint], mock: MockServer
) -> None:
    comparison = Comparison(pair)
    comparison.ask("one", 20)
    comparison.new_conversation()
    comparison.ask("two", 20)
    comparison.ask("three", 20)
    comparison.remember = False
    comparison.ask("four", 20)
    assert asked(mock, "tuned") == [["one"], ["two"], ["two", "tuned heard two", "three"], ["four"]]
    assert [item.fresh for item in comparison.rounds] == [True, True, False, True]


def test_an_edit_keeps_the_side_of_each_column(pair: list[Endpoint], mock: MockServer) -> None:
    comparison = Comparison(pair, blind=True)
    first = comparison.ask("one", 20)
    second = comparison.ask("two", 20)
    comparison.edit(second.number, "zwei")
    follow(lambda: 0.01 if comparison.look() is not None and comparison.busy else None, comparison.cancel, 20)
    assert [item.prompt for item in comparison.rounds] == ["one", "zwei"]
    assert comparison.sitting(comparison.rounds[1]) is comparison.sitting(first)
    assert asked(mock, "base")[-1] == ["one", "base heard one", "zwei"]
    comparison.undo()
    assert [item.prompt for item in comparison.rounds] == ["one", "two"]


@pytest.mark.parametrize("choice", ["", "C", "AB", "base", "Tie"])
def test_no_vote_is_guessed(pair: list[Endpoint], choice: str) -> None:
    comparison = Comparison(pair, blind=True)
    with pytest.raises(BadRequest, match="Nothing was asked"):
        comparison.vote("A")
    comparison.ask("hi", 20)
    with pytest.raises(BadRequest, match="A, B, tie or bad"):
        comparison.vote(choice)


def test_an_open_vote_takes_names_and_can_be_changed(pair: list[Endpoint]) -> None:
    comparison = Comparison(pair)
    item = comparison.ask("hi", 20)
    comparison.vote("tuned")
    comparison.vote("bad")
    assert comparison.shown_vote(item) == "bad" and comparison.tally().votes == 1


def test_the_tally_counts_blind_votes_alone_and_says_how_sure_it_is() -> None:
    votes = [Vote(1, True)] * 9 + [Vote(0, True), Vote("tie", True), Vote("bad", True), Vote(0, False)]
    found = tally(votes, ["base", "tuned"])
    assert (found.decided, found.ties, found.bad, found.seen) == (10, 1, 1, 1)
    assert found.p_value == pytest.approx(22 / 1024)  # both tails of ten fair coins
    assert found.standings[1].low < 0.9 < found.standings[1].high
    words = " ".join(sentences(found))
    assert "12 votes: 1 tied, 1 where none was good." in words
    assert "tuned is preferred" in words and "Not counted: 1" in words
    assert "cannot be told yet" in " ".join(sentences(tally(votes[:2], ["base", "tuned"])))
    assert tally([Vote(2, True)], ["a", "b", "c"]).p_value is None
    assert sentences(tally([], ["a", "b"])) == []


def test_of_three_the_best_is_voted_for(pair: list[Endpoint], mock: MockServer) -> None:
    endpoints = [*pair, mock.endpoint("third", "third")]
    comparison = Comparison(endpoints, blind=True, blind_seed=3)
    item = comparison.ask("hi", 20)
    comparison.vote("C")
    best = endpoints[comparison.sitting(item).order[2]].name
    assert comparison.seen(item)[2][0].text == f"{best} heard hi"
    assert {standing.name: standing.wins for standing in comparison.tally().standings}[best] == 1


def test_the_same_endpoint_twice_is_told_apart_in_the_tally(mock: MockServer) -> None:
    comparison = Comparison([mock.endpoint("e", "base"), mock.endpoint("e", "base")])
    comparison.ask("hi", 20)
    comparison.vote("B")
    names = [standing.name for standing in comparison.tally().standings]
    assert len(set(names)) == 2 and comparison.tally().standings[1].wins == 1


def test_repeats_are_asked_and_a_wrong_option_is_refused(pair: list[Endpoint]) -> None:
    comparison = Comparison(pair, repeat=3, temperature=0)
    item = comparison.ask("hi", 20)
    assert [len(takes) for takes in item.takes] == [3, 3]
    with pytest.raises(BadRequest, match="Temperature"):
        Comparison(pair, temperature=9)
    with pytest.raises(BadRequest, match="Times"):
        Comparison(pair, repeat=0)


def test_hidden_names_are_in_no_export_either(pair: list[Endpoint]) -> None:
    comparison = Comparison(pair, blind=True, blind_seed=TURNED)
    comparison.ask("hi", 20)
    data = as_data(comparison)
    assert [column["endpoint"] for column in data["rounds"][0]["columns"]] == [None, None]
    assert "base" not in json.dumps([column["name"] for column in data["rounds"][0]["columns"]])
    comparison.reveal()
    assert [column["endpoint"] for column in as_data(comparison)["rounds"][0]["columns"]] == [1, 0]
