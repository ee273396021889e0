"""Scorers of JSON answers: equal to the expected value, or valid under a JSON Schema.

A fence of Markdown around the JSON is taken off: nearly all chat models write one, and it is not what is measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ipytune.evaluate.scorers.patterns import search
from ipytune.evaluate.scorers.score import Case, Score, ScoringFailed, clipped

_FENCED = re.compile(r"\A```[\w-]*[ \t]*\n(.*)\n[ \t]*```\Z", re.DOTALL)


class NotJson(ValueError):
    """The text is no JSON value; says where."""


def parsed(text: str) -> Any:
    """The JSON value of an answer, without the fence around it. Raises NotJson, for NaN and Infinity too."""
    stripped = text.strip()
    fenced = _FENCED.match(stripped)
    try:
        return json.loads(fenced.group(1) if fenced else stripped, parse_constant=_no_number)
    except RecursionError:
        raise NotJson("nested too deeply") from None
    except ValueError as error:
        raise NotJson(str(error)) from None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


@dataclass(frozen=True)
class JsonEqual:
    """The same JSON value: order of members and white space do not matter, 1 equals 1.0, and true is no 1."""

    name: str = "json"
    needs_expected: bool = True

    def score(self, case: Case) -> Score:
        try:
            wanted = parsed(case.wanted)
        except NotJson as error:
            raise ScoringFailed(f"The expected answer is no JSON: {error}.") from None
        try:
            given = parsed(case.given)
        except NotJson as error:
            return Score.of(False, f"no JSON: {error}")
        try:
            difference = next(differences(wanted, given), None)
        except RecursionError:
            raise ScoringFailed("The answer is nested too deeply to compare.") from None
        return Score.of(difference is None, difference or "")


def differences(wanted: Any, given: Any, path: str = "$") -> Iterator[str]:
    """Where two JSON values differ, in words."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        for name in wanted:
            if name not in given:
                yield f"{path}.{name} is missing"
            else:
                yield from differences(wanted[name], given[name], f"{path}.{name}")
        yield from (f"{path}.{name} is too much" for name in given if name not in wanted)
    elif isinstance(wanted, list) and isinstance(given, list):
        if len(wanted) != len(given):
            yield f"{path} has {len(given)} items, expected {len(wanted)}"
        for place, (one, other) in enumerate(zip(wanted, given, strict=False)):
            yield from differences(one, other, f"{path}[{place}]")
    elif isinstance(wanted, bool) is not isinstance(given, bool) or wanted != given:
        yield f"{path} is {clipped(json.dumps(given), 40)}, expected {clipped(json.dumps(wanted), 40)}"


@dataclass(frozen=True)
class JsonSchema:
    """The answer is JSON, and valid under the schema (draft 2020-12 unless the schema names another).

    Nothing is fetched: a $ref leads into the schema itself. Raises ValueError for what is no schema.
    """

    schema: Mapping[str, Any] | bool
    name: str = "json-schema"
    needs_expected: bool = False
    _validator: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import extend, validator_for
        from referencing import Registry

        kind = validator_for(self.schema, default=Draft202012Validator)
        try:
            kind.check_schema(self.schema)
        except SchemaError as error:
            raise ValueError(f"This is no JSON Schema: {error.message} (at {error.json_path}).") from None
        limited = extend(kind, {"pattern": _pattern})  # jsonschema's own has no limit on its time
        object.__setattr__(self, "_validator", limited(self.schema, registry=Registry()))

    def score(self, case: Case) -> Score:
        from referencing.exceptions import Unresolvable

        try:
            value = parsed(case.given)
        except NotJson as error:
            return Score.of(False, f"no JSON: {error}")
        try:
            wrong = next(iter(self._validator.iter_errors(value)), None)
        except Unresolvable as missing:
            raise ScoringFailed(f"The schema refers to {missing.ref!r}, which it does not hold.") from None
        except RecursionError:
            raise ScoringFailed("The schema or the answer is nested too deeply.") from None
        if wrong is None:
            return Score.of(True)
        return Score.of(False, f"{wrong.json_path}: {clipped(wrong.message, 120)}")


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if validator.is_type(instance, "string") and search(pattern, instance) is None:
        yield ValidationError(f"{clipped(instance, 40)!r} does not match {pattern!r}")
