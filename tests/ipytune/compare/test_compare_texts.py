"""Texts of models: made harmless, compared word by word, grouped; all of it pure."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipytune.compare.differences import difference, share
from ipytune.compare.stability import groups, sentence
from ipytune.compare.terminal import end_of
from ipytune.endpoints.untrusted import one_line, visible

ANY = st.text(st.characters(codec=None))


@settings(deadline=None)
@given(ANY)
def test_no_control_and_no_bidirectional_character_is_left(text: str) -> None:
    shown = visible(text)
    left = {character for character in shown if unicodedata.category(character) in ("Cc", "Cs")}
    assert left <= {"\n", "\t"}
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]", shown)
    shown.encode("utf-8")


@pytest.mark.parametrize("text", ["plain", "a\n\tb", "Zürich → 日本 ❄ 👩‍👧", "שלום"])
def test_ordinary_text_stays(text: str) -> None:
    assert visible(text) == text


def test_a_title_is_one_short_line() -> None:
    assert one_line("a\n\x1b[2J" + "b" * 500, 20) == "a ␛[2J" + "b" * 13 + "…"


@settings(deadline=None)
@given(ANY, ANY)
def test_a_difference_holds_both_texts(first: str, second: str) -> None:
    parts = difference(first, second)
    assert "".join(part.text for part in parts if part.kind != "ins") == first
    assert "".join(part.text for part in parts if part.kind != "del") == second
    assert all(a.kind != b.kind for a, b in zip(parts, parts[1:], strict=False))
    assert (share(parts) == 1) == (first == second)


def test_a_difference_is_by_words() -> None:
    parts = difference("two small nodes, three hours", "two nodes, four hours")
    assert [(part.kind, part.text) for part in parts if part.kind != "same"] == [
        ("del", "small "),
        ("del", "three "),
        ("ins", "four "),
    ]


def test_long_texts_with_nothing_in_common_are_compared_all_the_same() -> None:
    first, second = "a b " * 20_000, "c d " * 20_000
    assert [part.kind for part in difference(first, second)] == ["del", "ins"]
    by_lines = difference("same\n" + "a b\n" * 1500, "other\n" + "a b c\n" * 1500)
    assert {part.kind for part in by_lines} == {"del", "ins"}


@pytest.mark.parametrize(
    ("text", "end"),
    [("a\nb\nc\nd", "c\nd"), ("x" * 25, "x" * 20), ("a\n" + "y" * 15, "y" * 15), ("", ""), ("a\n\n", "\n")],
)
def test_of_a_long_text_a_terminal_shows_the_end(text: str, end: str) -> None:
    assert end_of(text, lines=2, width=10) == end


def test_equal_answers_are_grouped_and_the_most_frequent_is_first() -> None:
    found = groups(["b", "a", "b\n", "c"])
    assert [(group.text, group.takes) for group in found] == [("b", (0, 2)), ("a", (1,)), ("c", (3,))]
    assert sentence(found) == "3 different answers in 4; the most frequent 2 times"
    assert sentence(groups(["a", "b"])) == "all 2 answers differ"
    assert sentence(groups(["a"])) == ""
