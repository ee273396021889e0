"""What may be asked of a model: each field checked for itself, and told at its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipytune.compare.parameters import FIELDS, Parameters, as_text, repeat_of
from ipytune.endpoints import BadRequest


def test_what_was_given_is_what_a_request_gets() -> None:
    options: dict[str, Any] = {
        "temperature": 0.0,
        "top_p": 0.9,
        "max_tokens": 64,
        "seed": -3,
        "stop": ["\n\n", "a\\nb", " "],
        "tools": [{"type": "function"}],
    }
    assert Parameters.of(**options).options() == options
    assert Parameters.of().options() == {}
    assert Parameters.of(temperature=None, stop=[]).options() == {}


@pytest.mark.parametrize(
    ("name", "typed", "word"),
    [
        ("temperature", "0,7", "with a point"),
        ("temperature", "2.1", "from 0 to 2"),
        ("temperature", "nan", "from 0 to 2"),
        ("temperature", "True", "no number"),
        ("top_p", "0", "above 0"),
        ("max_tokens", "0", "from 1 on"),
        ("max_tokens", "1.5", "whole number"),
        ("seed", "9" * 20, "64 bits"),
        ("stop", "a\nb\nc\nd\ne", "At most 4"),
        ("stop", "x" * 201, "200 characters"),
    ],
)
def test_a_wrong_value_is_told_at_its_field_and_sends_nothing(name: str, typed: str, word: str) -> None:
    parameters = Parameters().changed(name, typed)
    assert word in parameters.errors[name]
    shown = {field["name"]: field for field in parameters.shown()}
    assert shown[name]["value"] == typed and word in shown[name]["error"]
    assert not any(field["error"] for other, field in shown.items() if other != name)
    with pytest.raises(BadRequest, match=FIELDS[name].label):
        parameters.options()
    assert parameters.changed(name, "").options() == {}


@pytest.mark.parametrize("name", ["model", "messages", "stream", "n"])
def test_what_the_client_sets_itself_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match=name):
        Parameters.of(**{name: 1})


@pytest.mark.parametrize("value", [0, 51, "", "x", None])
def test_a_wrong_number_of_repeats_is_refused(value: object) -> None:
    with pytest.raises(BadRequest, match="from 1 to 50"):
        repeat_of(value)


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=20), max_size=4))
def test_any_stop_survives_its_field(stops: list[str]) -> None:
    assert Parameters().changed("stop", as_text(stops)).options().get("stop", []) == stops


@settings(deadline=None)
@given(st.sampled_from(sorted(FIELDS)), st.text())
def test_whatever_is_typed_is_right_or_told(name: str, typed: str) -> None:
    parameters = Parameters().changed(name, typed)
    if parameters.errors:
        assert list(parameters.errors) == [name]
    else:
        assert set(parameters.options()) <= {name}
