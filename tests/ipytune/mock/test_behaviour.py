"""A behaviour is checked when it is made, and says what is allowed."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.mock import Behaviour


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("ttft", -1, "seconds, from 0"),
        ("ttft", "0.2", "seconds"),
        ("itl", float("nan"), "seconds"),
        ("itl", True, "seconds"),
        ("tokens", 0, "a whole number from 1"),
        ("tokens_per_chunk", 1.5, "a whole number"),
        ("error_rate", 1.01, "from 0 to 1"),
        ("error_status", 200, "300 to 599"),
        ("usage", "always", '"own chunk", "last chunk", "none"'),
        ("cut", "rst", '"fin", "reset"'),
        ("models", (), "at least one name"),
        ("hang_after", -1, "or None"),
        ("answers", {"a": 1}, "prompts and answers"),
        ("key", "two words", "without spaces"),
        ("role_only", 1, "true or false"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: ") as caught:
        Behaviour(**{name: value})
    assert allowed in str(caught.value)


def test_an_answer_ends_in_one_way() -> None:
    with pytest.raises(ValueError, match="one way"):
        Behaviour(cut_after=0, hang_before=True)


def test_an_unknown_field_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean ttft"):
        Behaviour().changed({"tftt": 1})


def test_one_request_cannot_change_the_whole_server() -> None:
    with pytest.raises(ValueError, match="whole server"):
        Behaviour().changed({"models": ["x"]}, own=True)
    assert Behaviour().changed({"models": ["x"]}).models == ("x",)


def test_a_key_is_in_no_repr_no_json_and_no_error() -> None:
    behaviour = Behaviour(key="marker0of0a0secret")
    assert "marker0of0a0secret" not in repr(behaviour) + json.dumps(behaviour.as_json())
    with pytest.raises(ValueError) as caught:
        Behaviour(key="marker0of0a0secret with a space")
    assert "marker0of0a0secret" not in str(caught.value)


def test_it_comes_back_from_json() -> None:
    behaviour = Behaviour(ttft=0.1, answers={"a": {"mock": "b"}}, refuses=("tools",), hang_after=3)
    assert Behaviour().changed(json.loads(json.dumps(behaviour.as_json()))) == behaviour


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([item.name for item in fields(Behaviour)]), _json)
def test_any_json_is_a_behaviour_or_a_sentence(name: str, value: Any) -> None:
    try:
        Behaviour().changed({name: value})
    except ValueError as error:
        assert str(error).startswith(f"{name}: ")
