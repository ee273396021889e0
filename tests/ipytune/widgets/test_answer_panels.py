"""Answers as the browser gets them: little traffic however long they are, harmless, bounded; all of it pure."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipytune.endpoints import Endpoint, Metrics, ServerFailed
from ipytune.endpoints.exchange import State, View
from ipytune.endpoints.logprobs import TokenLogprob
from ipytune.endpoints.tool_calls import ToolCall
from ipytune.widgets.answers import FASTEST, Growth, bounded, joined, shown, static_take

ENDPOINT = Endpoint(name="e", base_url="http://127.0.0.1:1", model="m")


def answers(*texts: str) -> list[dict[str, object]]:
    return [shown([View(ENDPOINT, State.WRITING, text)]) for text in texts]


def test_a_long_answer_is_not_sent_again_with_every_picture() -> None:
    growth, length, sent, seconds, pictures = Growth(), 0, 0, 0.0, 0
    whole: list[dict[str, object]] = []
    while length < 100_000:
        length = min(100_000, round(seconds * 4_000))  # a thousand tokens a second
        traits, pause = growth.step(answers("x" * length, "y" * length))
        whole = traits.get("whole", whole)
        assert joined(whole, traits["added"])[1]["text"] == "y" * length
        sent += len(json.dumps(traits))
        seconds += pause
        pictures += 1
    assert pictures > 100  # it is seen to grow
    assert sent / seconds < 200_000  # bytes a second: a fifth of what Jupyter's server lets through
    naive = sum(2 * 4_000 * FASTEST * n for n in range(round(seconds / FASTEST)))
    assert sent < naive / 3


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=12), st.randoms(use_true_random=False))
def test_what_is_put_together_is_what_there_is(steps: list[tuple[str, str]], chance: random.Random) -> None:
    growth, texts = Growth(), ["", ""]
    whole: list[dict[str, object]] = []
    for more in steps:
        texts = [old + new * chance.choice([1, 1, 3000]) for old, new in zip(texts, more, strict=True)]
        if chance.random() < 0.1:
            texts = list(more)  # another round
        now = answers(*texts)
        traits, _ = growth.step(now, last=chance.random() < 0.2)
        whole = traits.get("whole", whole)
        shown_now = joined(whole, traits["added"])
        assert [item["text"] for item in shown_now] == [item["text"] for item in now]


def test_earlier_answers_share_a_budget_and_the_newest_stays_whole() -> None:
    kept = bounded(answers("a" * 9_000, "b" * 9_000, "c" * 9_000), budget=20_000)
    assert [len(item["text"]) for item in kept] == [2_000, 9_000, 9_000]
    assert "Shortened here" in kept[0]["note"] and not kept[1]["note"]


def test_what_a_model_wrote_is_made_harmless() -> None:
    view = View(
        ENDPOINT.model_copy(update={"name": "e\u202e"}),
        State.FAILED,
        "\x1b[2J<i>\u202e",
        "\x07",
        error=ServerFailed("w\x1b", "why", ""),
        tool_calls=(ToolCall("1", "f\x1b", '{"a": 1}'),),
        logprobs=(TokenLogprob("\u202e", -0.1, (("\x1b", -0.1), (" ", -9.0))), TokenLogprob("a", None)),
    )
    column = shown([view])
    flat = json.dumps(column, ensure_ascii=False) + static_take([view])
    assert not any(character in flat for character in ("\u202e", "\x1b", "\x07", "\\u001b"))
    assert "<i>" not in static_take([view])
    assert column["logprobs"] == [["⟨U+202E⟩", "90%", "␛ 90%, ␣ < 1 %"], ["a", "–", ""]]


def test_of_several_answers_the_most_frequent_is_shown_once_all_are_there() -> None:
    done = [View(ENDPOINT, State.DONE, text) for text in ("a", "b", "b")]
    column = shown(done, asked=3)
    assert (column["text"], column["groups"]) == ("b", [[2, "b"], [1, "a"]])
    writing = shown([*done[:1], View(ENDPOINT, State.WRITING, "so f")], asked=3)
    assert writing["text"] == "so f" and writing["note"].startswith("Answer 2 of 3.")


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (View(ENDPOINT, State.CANCELLED, "a"), "Cancelled"),
        (View(ENDPOINT, State.DONE), "empty"),
        (View(ENDPOINT, State.DONE, finish_reason="tool_calls"), "Nothing is run"),
        (View(ENDPOINT, State.DONE, "a", finish_reason="length"), "max_tokens"),
        (View(ENDPOINT, State.DONE, "a", metrics=Metrics(ttft=0.1)), "chunks were counted"),
    ],
)
def test_what_a_reader_must_know_is_said(view: View, words: str) -> None:
    assert words in shown([view])["note"]
