"""What a notebook takes, and what is refused before anything waits in a queue."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.batch.parameters import UNKNOWN, ParameterError, check, declared, from_yaml, typed
from tests.ipytune.batch import tiny

DEFAULTS: dict[str, Any] = {
    "RANK": 8,
    "RATE": 1e-4,
    "NAME": "a",
    "LAYERS": ["q"],
    "ON": False,
    "SEED": None,
    "X": UNKNOWN,
}


def test_names_and_defaults_of_the_parameters_cell() -> None:
    assert declared(tiny.notebook()) == {
        "RANK": 8, "RATE": 1e-4, "NAME": "a", "LAYERS": ["q_proj"], "FAIL": False, "WAIT": False, "OUT_DIR": "tiny",
    }  # fmt: skip


def cell(source: str, *tags: str) -> nbformat.NotebookNode:
    one = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("BEFORE = 1"), one])


def test_annotated_computed_and_untagged() -> None:
    assert declared(cell("A: int = 1\nB = C = -2\nD = 60 * 60\nprint(A)\nE: str", "parameters")) == {
        "A": 1,
        "B": -2,
        "C": -2,
        "D": UNKNOWN,
    }
    assert declared(cell("A = 1")) == {}
    with pytest.raises(ParameterError, match="not Python"):
        declared(cell("A = = 1", "parameters"))


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("8", 1, 8),
        ("2e-4", 0.1, 2e-4),
        ("None", 3, None),
        ("True", UNKNOWN, True),
        ("true", False, True),
        ("true", UNKNOWN, "true"),
        ("007", "abc", "007"),
        ("[1, 2e-4, a]", UNKNOWN, [1, 2e-4, "a"]),
        ("{a: 2020-01-01}", UNKNOWN, {"a": "2020-01-01"}),
        ("a b", UNKNOWN, "a b"),
    ],
)
def test_a_text_becomes_a_value(text: str, default: Any, value: Any) -> None:
    assert typed(text, default) == value
    assert type(typed(text, default)) is type(value)


def test_yaml_as_people_mean_it() -> None:
    assert from_yaml("{a: 2e-4, b: 1.5E+3, c: 2020-01-01, d: 12, e: e4, f: 1e}") == {
        "a": 2e-4, "b": 1500.0, "c": "2020-01-01", "d": 12, "e": "e4", "f": "1e",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RANK", "eight", "RANK is 'eight': a whole number is expected, as its default 8"),
        ("RANK", 8.5, "a whole number"),
        ("RANK", True, "a whole number"),
        ("RATE", "fast", "a number"),
        ("RATE", float("nan"), "finite"),
        ("NAME", 5, "a text"),
        ("LAYERS", "q", "a list"),
        ("ON", 1, "true or false"),
        ("SEED", {1: 2}, "texts, finite numbers"),
        ("rank", 1, "Did you mean RANK?"),
        ("RNAK", 1, "Did you mean RANK?"),
        ("zebra", 1, "no such parameter. It has RANK"),
    ],
)
def test_what_is_refused(name: str, value: Any, words: str) -> None:
    with pytest.raises(ParameterError) as refused:
        check(name, value, DEFAULTS)
    assert words in str(refused.value)


def test_what_is_taken() -> None:
    assert isinstance(check("RATE", 1, DEFAULTS), float)
    assert check("RANK", None, DEFAULTS) is None
    for value in (1, "a", [1, {"b": None}]):
        assert check("SEED", value, DEFAULTS) == value == check("X", value, DEFAULTS)


@given(st.text(), st.sampled_from(list(DEFAULTS.values())))
def test_any_text_becomes_a_value_or_an_error_in_words(text: str, default: Any) -> None:
    try:
        check("P", typed(text, default), {"P": default})
    except ParameterError as error:
        assert str(error)
