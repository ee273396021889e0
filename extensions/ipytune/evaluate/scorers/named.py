"""Scorers by a word, as the command line and a row's `scorer` column name them.

exact | normalised[:keep-case,keep-punctuation,keep-whitespace,articles] | regex[:PATTERN] | contains[:A|B] |
contains-all:A|B | json | json-schema:FILE | number[:RELATIVE] | similarity[:THRESHOLD]
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from ipytune.evaluate.scorers.numbers import Number
from ipytune.evaluate.scorers.patterns import Regex
from ipytune.evaluate.scorers.score import Scorer
from ipytune.evaluate.scorers.structures import JsonEqual, JsonSchema
from ipytune.evaluate.scorers.texts import Contains, Exact, Normalised, Similarity


def scorer(word: str) -> Scorer:
    """The scorer that a word names; the whole word becomes the name of its column. Raises ValueError."""
    kind, _, argument = word.strip().partition(":")
    make = _MAKERS.get(kind.strip())
    if make is None:
        near = difflib.get_close_matches(kind, _MAKERS, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"There is no scorer {kind!r}.{hint} There are: {', '.join(_MAKERS)}.")
    if not argument and kind in ("contains-all", "json-schema"):
        raise ValueError(f"{kind} needs something after the colon: {_EXAMPLES[kind]}.")
    if argument and kind in ("exact", "json"):
        raise ValueError(f"{kind} takes nothing after the colon.")
    return make(argument, word.strip())


def row_scorer(word: str) -> Scorer:
    """As `scorer`, of a row's own column: data may come from others, so it names no files. Raises ValueError."""
    if word.strip().startswith("json-schema"):
        raise ValueError("A row cannot name a schema's file. Give json-schema as a scorer of the whole evaluation.")
    return scorer(word)


def _normalised(argument: str, name: str) -> Scorer:
    words = {word.strip() for word in argument.split(",") if word.strip()}
    known = {"keep-case", "keep-punctuation", "keep-whitespace", "articles"}
    if words - known:
        raise ValueError(f"normalised knows {', '.join(sorted(known))}, not {', '.join(sorted(words - known))}.")
    return Normalised(
        case="keep-case" not in words,
        whitespace="keep-whitespace" not in words,
        punctuation="keep-punctuation" not in words,
        articles="articles" in words,
        name=name,
    )


def _contains(argument: str, name: str, every: bool = False) -> Scorer:
    return Contains(tuple(word for word in argument.split("|") if word), every, name)


def _schema(argument: str, name: str) -> Scorer:
    path = Path(argument).expanduser()
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"The schema {argument} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The schema {argument} is no JSON: {error}.") from None
    if not isinstance(schema, (dict, bool)):
        raise ValueError(f"The schema {argument} is no JSON object.")
    return JsonSchema(schema, f"json-schema:{path.name}")


def _number(argument: str, name: str) -> Scorer:
    return Number(relative=_float(argument, "number"), name=name) if argument else Number(name=name)


def _similarity(argument: str, name: str) -> Scorer:
    return Similarity(_float(argument, "similarity"), name) if argument else Similarity(name=name)


def _float(text: str, kind: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{kind} takes a number after the colon, not {text!r}: {_EXAMPLES[kind]}.") from None


_EXAMPLES: Mapping[str, str] = {
    "contains-all": "contains-all:--nodes|--time",
    "json-schema": "json-schema:answer.schema.json",
    "number": "number:0.01 allows one percent",
    "similarity": "similarity:0.8",
}
_MAKERS: Mapping[str, Callable[[str, str], Scorer]] = {
    "exact": lambda _, name: Exact(name),
    "normalised": _normalised,
    "regex": lambda argument, name: Regex(argument or None, name),
    "contains": _contains,
    "contains-all": lambda argument, name: _contains(argument, name, every=True),
    "json": lambda _, name: JsonEqual(name),
    "json-schema": _schema,
    "number": _number,
    "similarity": _similarity,
}
