"""Exact, normalised, contains and similarity: what counts as a difference and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.evaluate.scorers import Case, Contains, Exact, Normalised, Score, ScoringFailed, Similarity
from ipytune.evaluate.scorers.texts import common_length, similarity

WORDS = st.text(alphabet="abc é", max_size=25)


def passes(scorer: Exact | Normalised | Contains | Similarity, answer: str, expected: str | None) -> bool:
    return scorer.score(Case(answer, expected)).passed is True


def test_exact_ignores_white_space_at_the_ends_only() -> None:
    assert passes(Exact(), "\nab c ", "ab c")
    assert not passes(Exact(), "ab  c", "ab c")
    assert not passes(Exact(), "AB", "ab")


@pytest.mark.parametrize(
    ("scorer", "answer", "right"),
    [
        (Normalised(), "  THE  answer, is: “42”! ", True),
        (Normalised(articles=True), "Answer is 42", True),
        (Normalised(), "Answer is 42", False),
        (Normalised(case=False), "the ANSWER is 42", False),
        (Normalised(punctuation=False), "the answer, is 42", False),
        (Normalised(whitespace=False), "the  answer is 42", False),
        (Normalised(), "the answer is 42+", False),
        (Normalised(), "the answer is ４２", True),  # full-width digits are the same letters
    ],
)
def test_normalised_leaves_out_what_does_not_matter(scorer: Normalised, answer: str, right: bool) -> None:
    assert passes(scorer, answer, "The answer is 42") is right


def test_contains_takes_any_word_or_all_of_them() -> None:
    assert passes(Contains(("--nodes", "--time")), "#SBATCH --TIME=1", None)
    assert not passes(Contains(("--nodes", "--time"), every=True), "#SBATCH --time=1", None)
    assert "'--nodes'" in Contains(("--nodes", "--time"), every=True).score(Case("--time")).detail
    assert passes(Contains(), "It is Paris, of course", "paris")
    assert Contains().needs_expected and not Contains(("a",)).needs_expected
    with pytest.raises(ValueError, match="empty word"):
        Contains(("a", ""))


def test_a_row_without_expected_answer_is_not_scored() -> None:
    for scorer in (Exact(), Normalised(), Contains(), Similarity()):
        with pytest.raises(ScoringFailed, match="no expected answer"):
            scorer.score(Case("a"))


def test_similarity_has_a_value_and_a_threshold() -> None:
    assert Similarity(0.5).score(Case("abcd", "abxd")) == Score(0.75, True, "0.75")
    assert Similarity(None).score(Case("", "")).passed is None
    assert similarity("", "") == similarity("same", "same") == 1.0
    assert similarity("abc", "") == 0.0
    with pytest.raises(ValueError, match="between 0 and 1"):
        Similarity(1.5)


@given(WORDS, WORDS)
def test_the_common_length_is_that_of_the_textbook(one: str, other: str) -> None:
    row = [0] * (len(other) + 1)
    for a in one:
        above = row
        row = [0]
        for place, b in enumerate(other):
            row.append(above[place] + 1 if a == b else max(row[place], above[place + 1]))
    assert common_length(one, other) == common_length(other, one) == row[-1]


def test_long_answers_are_compared_in_bounded_time() -> None:
    assert similarity("a" * 200_000, "ab" * 100_000) == 0.5  # of the first 50,000


def test_a_score_outside_its_range_is_refused() -> None:
    for value in (-0.1, 1.1, float("nan"), float("inf")):
        with pytest.raises(ScoringFailed, match="between 0 and 1"):
            Score(value)
