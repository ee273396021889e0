"""Patterns, JSON, numbers and own functions: right answers in another form pass, wrong ones do not, nothing hangs."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.evaluate.scorers import Case, JsonEqual, JsonSchema, Number, Own, Regex, Score, ScoringFailed
from ipytune.evaluate.scorers.numbers import last_number

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ENDLESS = "^(a|aa)+$"  # tries all ways to split the letters when the end does not fit
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"nodes": {"type": "integer", "minimum": 1}, "name": {"type": "string", "pattern": "^[a-z]+$"}},
    "required": ["nodes"],
}


def test_a_pattern_is_found_anywhere_and_lines_have_ends() -> None:
    assert Regex("^#SBATCH --nodes=2$").score(Case("#!/bin/sh\n#SBATCH --nodes=2\n")).passed
    assert Regex("b+").score(Case("abba")) == Score(1.0, True, "found 'bb'")
    assert Regex().score(Case("x7", expected=r"x\d")).passed
    assert Regex().needs_expected and not Regex("a").needs_expected
    with pytest.raises(ValueError, match="is no regular expression"):
        Regex("(unclosed")
    with pytest.raises(ScoringFailed, match="is no regular expression"):
        Regex().score(Case("a", expected="(unclosed"))


def test_a_pattern_that_would_never_end_is_stopped() -> None:
    with pytest.raises(ScoringFailed, match="took longer than"):
        Regex(ENDLESS).score(Case("a" * 80 + "!"))


@given(VALUES)
def test_json_is_equal_to_itself_however_it_is_written(value: Any) -> None:
    text = json.dumps(value)
    for form in (text, json.dumps(value, indent=2), f"```json\n{text}\n```", f"\n```\n{text}\n```  "):
        assert JsonEqual().score(Case(form, text)).passed


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ('{"a": 1, "b": [1]}', "$.b has 1 items, expected 2"),
        ('{"a": true, "b": [1, 2]}', "$.a is true, expected 1"),
        ('{"b": [1, 2]}', "$.a is missing"),
        ('{"a": 1.0, "b": [1, 2], "c": 0}', "$.c is too much"),
        ("[1]", "$ is [1], expected"),
        ("surely: {}", "no JSON"),
        ('{"a": NaN}', "no JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_different_json_says_where(answer: str, detail: str) -> None:
    score = JsonEqual().score(Case(answer, '{"a": 1, "b": [1, 2]}'))
    assert score.passed is False and detail in score.detail


def test_an_expected_answer_that_is_no_json_is_an_error_of_the_data() -> None:
    with pytest.raises(ScoringFailed, match="expected answer is no JSON"):
        JsonEqual().score(Case("{}", "not json"))


def test_a_schema_says_what_is_wrong_and_where() -> None:
    scorer = JsonSchema(SCHEMA)
    assert scorer.score(Case('```json\n{"nodes": 2, "name": "ab"}\n```')).passed
    assert "$.nodes" in scorer.score(Case('{"nodes": 0}')).detail
    assert "does not match" in scorer.score(Case('{"nodes": 1, "name": "A"}')).detail
    assert scorer.score(Case("none")).passed is False
    with pytest.raises(ValueError, match="no JSON Schema"):
        JsonSchema({"type": "objekt"})


def test_a_schema_fetches_nothing_and_its_patterns_end() -> None:
    with pytest.raises(ScoringFailed, match="which it does not hold"):
        JsonSchema({"$ref": "http://127.0.0.1:9/other.json"}).score(Case("1"))
    with pytest.raises(ScoringFailed, match="took longer than"):
        JsonSchema({"pattern": ENDLESS}).score(Case(json.dumps("a" * 80 + "!")))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2 nodes make 1,536 cores.", 1536),
        ("3-4", 4),
        ("x = -4.5e3", -4500),
        ("minus \N{MINUS SIGN}7", -7),
        ("1'000'000 francs", 1e6),
        ("so the answer is **42**.", 42),
        ("#### 18", 18),
        ("from 5 to 1e999", 5),
        ("1,5", 5),  # the decimal mark is a point
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_counts(text: str, number: float | None) -> None:
    assert last_number(text) == number


@given(st.floats(min_value=-1e12, max_value=1e12))
def test_a_number_is_found_as_it_was_written(value: float) -> None:
    assert last_number(f"first 3, then {value!r}") == pytest.approx(value)


@given(st.text(max_size=60))
def test_any_text_has_a_finite_last_number_or_none(text: str) -> None:
    found = last_number(text)
    assert found is None or math.isfinite(found)


def test_numbers_may_differ_by_the_tolerance() -> None:
    assert Number(relative=0.01).score(Case("about 101", "100")).passed
    assert not Number(relative=0.001).score(Case("about 101", "100")).passed
    assert Number(absolute=0.5, relative=0).score(Case("0.4", "0")).passed
    assert Number().score(Case("none", "1")).detail == "no number in the answer"
    with pytest.raises(ScoringFailed, match="no number in the expected"):
        Number().score(Case("1", "one"))
    with pytest.raises(ValueError, match="tolerance"):
        Number(relative=-1)


def test_an_own_function_gives_a_score_or_an_error_never_a_guess() -> None:
    assert Own("long", lambda given, expected: len(given) > 3).score(Case("abcd")) == Score(1.0, True)
    assert Own("part", lambda given, expected: 0.25).score(Case("a")) == Score(0.25)
    for function, words in (
        (lambda given, expected: 1 / 0, "ZeroDivisionError"),
        (lambda given, expected: "yes", "not True, False"),
        (lambda given, expected: None, "not True, False"),
        (lambda given, expected: 2.0, "between 0 and 1"),
        (lambda given, expected: math.nan, "between 0 and 1"),
    ):
        with pytest.raises(ScoringFailed, match=words):
            Own("own", function).score(Case("a"))  # type: ignore[arg-type]
