"""A small instance of a JSON schema: what a server with guided decoding might answer at its shortest. Pure.

The parts of JSON Schema that people give to a model: types, properties, required, items, enum, const, bounds, the
first of anyOf / oneOf, all of allOf, references within the document. A pattern is not made up: such a string is empty.
"""

from __future__ import annotations

from typing import Any

_DEEPEST = 16  # a schema that refers to itself would never end, and one that does so twice would grow too fast


def instance(schema: Any) -> Any:
    """A value that the schema allows.

    >>> instance({"type": "object", "properties": {"nodes": {"type": "integer", "minimum": 1}}, "required": ["nodes"]})
    {'nodes': 1}
    """
    return _instance(schema, schema, 0)


def _instance(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return None
    if isinstance(schema.get("$ref"), str):
        return _instance(_referred(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if isinstance(schema.get(choice), list) and schema[choice]:
            return _instance({**_without(schema, choice), **_as_dict(schema[choice][0])}, root, depth + 1)
    if isinstance(schema.get("allOf"), list):
        merged = _without(schema, "allOf")
        for part in schema["allOf"]:
            part = _as_dict(part)
            part = _as_dict(_referred(part["$ref"], root)) if isinstance(part.get("$ref"), str) else part
            merged = {
                **merged,
                **part,
                "properties": {**_as_dict(merged.get("properties")), **_as_dict(part.get("properties"))},
                "required": [*_as_list(merged.get("required")), *_as_list(part.get("required"))],
            }
        return _instance(merged, root, depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or (kind is None and "properties" in schema):
        properties = _as_dict(schema.get("properties"))
        # Strict mode wants every property; elsewhere the required ones are the shortest, if there are any.
        names = [name for name in _as_list(schema.get("required")) if isinstance(name, str)] or list(properties)
        return {name: _instance(properties.get(name, {}), root, depth + 1) for name in dict.fromkeys(names)}
    if kind == "array":
        return [_instance(schema.get("items", {}), root, depth + 1) for _ in range(_least(schema.get("minItems")))]
    if kind == "string":
        return "x" * _least(schema.get("minLength"))
    if kind in ("integer", "number"):
        return _number(schema, kind == "integer")
    return {"boolean": False, "null": None}.get(str(kind))


def _number(schema: dict[str, Any], whole: bool) -> int | float:
    above, below = _real(schema.get("exclusiveMinimum")), _real(schema.get("exclusiveMaximum"))
    low, high = _real(schema.get("minimum")), _real(schema.get("maximum"))
    low, high = above if low is None else low, below if high is None else high
    step = _real(schema.get("multipleOf"))
    step = abs(step) if step else 1 if whole else None
    value: int | float = low if low is not None else 0 if high is None or high > 0 else high
    if whole and value != int(value):
        value = int(value) + (value > 0)
    if value == above:
        value = value + step if step else (value + high) / 2 if high is not None else value + 1
    if value == below:
        value -= step or 1
    if step and value % step:
        value += step - value % step
    return int(value) if whole else value


def _real(value: Any) -> int | float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and abs(value) < 1e300 else None


def _referred(reference: str, root: Any) -> Any:
    place = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            place = place.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
    return place


def _without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _least(value: Any) -> int:
    return min(value, 1000) if isinstance(value, int) and value > 0 else 0
