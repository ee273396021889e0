"""What a schema is answered with is an instance of it."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.mock.schema import instance


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 3},
        {"type": "integer", "minimum": 3},
        {"type": "integer", "exclusiveMinimum": 3},
        {"type": "integer", "minimum": 3, "multipleOf": 5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "maximum": -2.5},
        {"type": ["null", "string"]},
        {"type": "array", "items": {"enum": ["a"]}, "minItems": 2},
        {"const": {"a": 1}},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {
            "allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"required": ["b"]}],
            "type": "object",
        },
        {
            "$defs": {"node": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
            "type": "object",
            "properties": {"first": {"$ref": "#/$defs/node"}, "all": {"type": "array"}},
            "required": ["first", "all"],
        },
        {},
    ],
)
def test_it_is_valid(schema: dict[str, Any]) -> None:
    jsonschema.validate(instance(schema), schema)


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}
    assert "child" in instance(schema)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "items", "allOf", "anyOf", "$ref", "minimum", "enum", "required"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(_anything)
def test_no_schema_breaks_it(schema: Any) -> None:
    instance(schema)
