"""What a request asks of a model besides the prompt, as fields that a person fills in and that are checked one by one.

A field holds what was typed, right or wrong; `errors` says at which field what is wrong, `options` is what a request
gets. Fields that this form does not know (tools, logprobs, response_format) are given from code and passed on. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ipytune.endpoints.errors import BadRequest

_MOST_STOPS = 4  # what OpenAI's API takes
_LONGEST_STOP = 200
_MOST_REPEATS = 50
# The client sets these; another value would make the answer unreadable for it. n: one request, one answer.
_OURS = ("model", "messages", "prompt", "stream", "stream_options", "endpoint", "key", "n")


@dataclass(frozen=True)
class Field:
    """One parameter: how it is shown, and how what was typed is read. `read` raises ValueError in the user's words."""

    name: str
    label: str
    help: str
    placeholder: str
    read: Callable[[str], Any]


def _number(lowest: float, highest: float, above: bool = False) -> Callable[[str], float]:
    span = f"above {lowest:g}, up to {highest:g}" if above else f"from {lowest:g} to {highest:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"This is no number. Write one {span}, with a point: 0.7.") from None
        if not math.isfinite(value) or not lowest <= value <= highest or (above and value == lowest):
            raise ValueError(f"It must be {span}.")
        return value

    return read


def _whole(lowest: int, highest: int, span: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
            raise ValueError(f"Write a whole number {span}.")
        value = int(text)
        if not lowest <= value <= highest:
            raise ValueError(f"It must be a whole number {span}.")
        return value

    return read


def _stops(text: str) -> list[str]:
    found = [_unescaped(line) for line in text.split("\n") if line]
    if len(found) > _MOST_STOPS:
        raise ValueError(f"At most {_MOST_STOPS} of them; here are {len(found)}.")
    if any(len(item) > _LONGEST_STOP for item in found):
        raise ValueError(f"Each may have {_LONGEST_STOP} characters at most.")
    return found


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def _unescaped(line: str) -> str:
    return re.sub(r"\\([ntr\\])", lambda match: _ESCAPES[match.group(1)], line)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


FIELDS: dict[str, Field] = {
    item.name: item
    for item in (
        Field(
            "temperature",
            "Temperature",
            "0 takes the likeliest token each time; the higher, the more varied.",
            "the server's",
            _number(0, 2),
        ),
        Field(
            "top_p",
            "Top p",
            "Only tokens that together have this probability are drawn from.",
            "the server's",
            _number(0, 1, above=True),
        ),
        Field(
            "max_tokens",
            "Most tokens",
            "The answer is cut there. Reasoning counts too.",
            "the server's",
            _whole(1, 10_000_000, "from 1 on"),
        ),
        Field(
            "seed",
            "Seed",
            "The same seed gives the same draws, where the server keeps to it.",
            "none",
            _whole(-(2**63), 2**63 - 1, "of 64 bits"),
        ),
        Field(
            "stop",
            "Stop at",
            r"One a line; \n means a new line. The answer ends before the first that comes.",
            "nothing",
            _stops,
        ),
    )
}

_read_repeat = _whole(1, _MOST_REPEATS, f"from 1 to {_MOST_REPEATS}")


@dataclass(frozen=True)
class Parameters:
    """See the module. typed: text by field's name; an empty one leaves the field to the server."""

    typed: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, **options: Any) -> Parameters:
        """From values as code has them. Raises BadRequest for one that is wrong, or that the client sets itself."""
        made = cls()
        for name, value in options.items():
            made = made.changed(name, value)
        made.options()
        return made

    def changed(self, name: str, value: Any) -> Parameters:
        """With another value, or another text, for one of them; None and "" take it away. It may be wrong: `errors`.

        Raises BadRequest for a field that the client sets itself.
        """
        if name in _OURS:
            raise BadRequest(
                f"“{name}” cannot be set.", "It is made from the endpoint and the prompt.", "Leave it out."
            )
        if name in FIELDS:
            return replace(self, typed={**self.typed, name: as_text(value)})
        rest = {key: kept for key, kept in self.extra.items() if key != name}
        return replace(self, extra=rest if value is None else {**rest, name: value})

    @property
    def errors(self) -> dict[str, str]:
        """What is wrong, by the field's name."""
        found = {}
        for name, text in self.typed.items():
            try:
                _value(name, text)
            except ValueError as error:
                found[name] = str(error)
        return found

    def options(self) -> dict[str, Any]:
        """The fields of a request. Raises BadRequest naming what is wrong."""
        errors = self.errors
        if errors:
            words = " ".join(f"{FIELDS[name].label}: {what}" for name, what in errors.items())
            raise BadRequest("A setting is wrong, so nothing was sent.", words, "Change it, or empty its field.")
        values = {name: _value(name, self.typed.get(name, "")) for name in FIELDS}
        return {**{name: value for name, value in values.items() if value not in (None, [])}, **self.extra}

    def shown(self) -> list[dict[str, str]]:
        """The fields for a form: what stands in them and what is wrong with it."""
        errors = self.errors
        return [
            {
                "name": item.name,
                "label": item.label,
                "help": item.help,
                "placeholder": item.placeholder,
                "kind": "lines" if item.name == "stop" else "number",
                "value": self.typed.get(item.name, ""),
                "error": errors.get(item.name, ""),
            }
            for item in FIELDS.values()
        ]


def as_text(value: Any) -> str:
    """A value as its field holds it; text stays as it was typed."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return "\n".join(_escaped(str(item)) for item in value)
    return str(value)


def repeat_of(value: Any) -> int:
    """How often each endpoint is asked. Raises BadRequest."""
    try:
        return _read_repeat(str(value).strip())
    except ValueError as error:
        raise BadRequest("“Times” is wrong.", str(error), "1 asks once.") from None


def _value(name: str, text: str) -> Any:
    if name != "stop":
        text = text.strip()  # a space at the end of a stop is meant
    return FIELDS[name].read(text) if text else None
