"""Scorers by a word, as on the command line and in a row."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.evaluate.scorers import Case, Exact, Judge, Own, as_scorers, row_scorer, scorer


@pytest.mark.parametrize(
    ("word", "right", "wrong"),
    [
        ("exact", "Paris", "paris"),
        ("normalised", "  paris! ", "london"),
        ("normalised:keep-case,articles", "the Paris", "paris"),
        ("regex:^P[a-z]+$", "Paris", "London"),
        ("contains:paris|rome", "it is Rome", "London"),
        ("contains-all:pa|ris", "Paris", "pa"),
        ("contains", "it is paris", "it"),
        ("similarity:0.7", "Pariss", "London"),
    ],
)
def test_a_word_names_a_scorer_and_its_column(word: str, right: str, wrong: str) -> None:
    found = scorer(word)
    assert found.name == word
    assert found.score(Case(right, "Paris")).passed
    assert not found.score(Case(wrong, "Paris")).passed


def test_numbers_and_json_have_words_too(tmp_path: Path) -> None:
    assert scorer("number:0.01").score(Case("101", "100")).passed
    assert scorer("json").score(Case("[1]", "[1.0]")).passed
    (tmp_path / "s.json").write_text('{"type": "array"}')
    assert scorer(f"json-schema:{tmp_path / 's.json'}").name == "json-schema:s.json"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("exakt", "Did you mean exact"),
        ("", "There are: exact"),
        ("exact:x", "takes nothing"),
        ("regex:(", "no regular expression"),
        ("number:x", "takes a number"),
        ("number:-1", "tolerance"),
        ("similarity:7", "between 0 and 1"),
        ("json-schema:/absent.json", "cannot be read"),
        ("json-schema", "needs something"),
        ("contains-all", "needs something"),
        ("normalised:loud", "normalised knows"),
    ],
)
def test_a_wrong_word_is_told_with_what_there_is(word: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        scorer(word)


@given(st.text(max_size=30))
def test_any_word_is_a_scorer_or_a_value_error(word: str) -> None:
    try:
        assert scorer(word).name
    except ValueError as error:
        assert str(error)


def test_a_row_names_no_files() -> None:
    with pytest.raises(ValueError, match="cannot name a schema"):
        row_scorer("json-schema:/etc/passwd")


def test_scorers_come_as_words_functions_and_objects() -> None:
    def brief(given: str, expected: str | None) -> bool:
        return len(given) < 5

    made = as_scorers(["exact", brief, Exact("again")])
    assert [item.name for item in made] == ["exact", "brief", "again"]
    assert isinstance(made[1], Own)
    assert not isinstance(as_scorers("exact")[0], Judge)
    with pytest.raises(ValueError, match="Two scorers are called 'exact'"):
        as_scorers(["exact", Exact()])
    with pytest.raises(ValueError, match="There is no scorer"):
        as_scorers([])
    with pytest.raises(ValueError, match="is no scorer"):
        as_scorers([3])  # type: ignore[list-item]
