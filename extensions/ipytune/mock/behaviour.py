"""What a mock server does: how fast it writes, what it says, and what it gets wrong. Pure data, checked when made.

    Behaviour(ttft=0.2, itl=0.02, tokens=100)              # a steady server
    Behaviour(answers={"1 + 1?": "2"}, error_rate=0.1)     # known answers, every tenth request refused
    Behaviour(hang_after=3)                                # a stream that stalls after HTTP 200

Times are seconds, counts are tokens; a token is a word with the space before it. A value that is not allowed raises
ValueError with the field, the value and what is allowed; the same check reads a request's own {"mock": {...}}.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast

Answers = Mapping[str, str | Mapping[str, str]]

LONGEST = 86_400.0  # seconds that anything may take
MOST = 10_000_000  # tokens


@dataclass(frozen=True)
class Behaviour:
    """Pace
      ttft           from the request's arrival to its first token
      itl            between tokens: token k is due at arrival + ttft + k * itl, however late the one before was
      jitter         each token comes up to so much later, at random, in order
      tail           from the last token to the end (finish reason, usage)
      header_delay   from the arrival to the status line
      slots          answers at once; further requests wait for their turn (0: no limit)
      seed           of everything random
    Words
      tokens         length of the answer where nothing else says it
      text           the answer; in the same process also a function of the request's body
      echo           the answer is the user's last message
      answers        prompt -> answer, or prompt -> {model: answer}; a prompt not in it is answered as without it
      reasoning_tokens, reasoning_field   thought before the answer, and the name of its field
      tools          a request that offers tools is answered with a call, unless its last message is a tool's result
      models         the names that it lists and serves
      key            what Authorization: Bearer must hold (None: nothing)
    Form of the stream
      tokens_per_chunk   several tokens in one event, due when its first token is
      role_only      a first delta with only a role, written with the headers: no token
      usage          "own chunk" (with empty choices, if the request includes usage), "last chunk", "none"
      comments       a keep-alive comment before every event;   comment_every: one every so many seconds, hanging or not
      split_utf8     a character of several bytes arrives in two reads;   crlf: lines end in CR LF
    Faults
      error_rate, error_first   the share of requests, and the first so many, that are refused
      error_status, error_body, retry_after, retry_after_form   with what (error_body None: OpenAI's form)
      repeat_key     a refusal repeats the key that it was sent, as careless servers do
      refuses        fields of a request that are answered with 422
      cut_after, cut the connection ends after so many tokens: "fin" or "reset"
      hang_before, hang_after   nothing comes after the headers, or after so many tokens
      bad_json_after, error_after   half an event, or an error object, after so many tokens
    """

    ttft: float = 0.0
    itl: float = 0.0
    jitter: float = 0.0
    tail: float = 0.0
    header_delay: float = 0.0
    slots: int = 0
    seed: int = 0

    tokens: int = 16
    text: str | Callable[[Mapping[str, Any]], str] | None = None
    echo: bool = False
    answers: Answers | None = None
    reasoning_tokens: int = 0
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    tools: bool = True
    models: tuple[str, ...] = ("mock",)
    key: str | None = field(default=None, repr=False)

    tokens_per_chunk: int = 1
    role_only: bool = True
    usage: Literal["own chunk", "last chunk", "none"] = "own chunk"
    comments: bool = False
    comment_every: float = 0.0
    split_utf8: bool = False
    crlf: bool = False

    error_rate: float = 0.0
    error_first: int = 0
    error_status: int = 500
    error_body: str | None = None
    retry_after: float | None = None
    retry_after_form: Literal["seconds", "date"] = "seconds"
    repeat_key: bool = False
    refuses: tuple[str, ...] = ()
    cut_after: int | None = None
    cut: Literal["fin", "reset"] = "reset"
    hang_before: bool = False
    hang_after: int | None = None
    bad_json_after: int | None = None
    error_after: int | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, item.name, value)
            allowed, holds = _RULES[item.name]
            if not holds(value):
                shown = "the value given" if item.name == "key" else repr(value)[:80]
                raise ValueError(f"{item.name}: {shown} is not allowed. It is {allowed}.")
        ends = [name for name in _ENDS if getattr(self, name) is not None and getattr(self, name) is not False]
        if len(ends) > 1:
            raise ValueError(f"{ends[1]}: an answer ends in one way. Leave out {' or '.join(ends)}.")

    def changed(self, values: object, *, own: bool = False) -> Behaviour:
        """With these fields instead, from JSON. own: for one request alone, so without what belongs to the server.

        Raises ValueError for a field that does not exist and for a value that is not allowed.
        """
        if not isinstance(values, dict):
            raise ValueError("mock: a behaviour is an object of fields and values.")
        for name in values:
            if name not in _RULES:
                near = difflib.get_close_matches(str(name), _RULES, 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(f"{name}: there is no such field.{hint} The fields are {', '.join(sorted(_RULES))}.")
            if own and name in SERVERS_OWN:
                raise ValueError(f"{name}: it belongs to the whole server. Start it so, or POST /mock/behaviour.")
        return replace(self, **cast(dict[str, Any], values))

    def as_json(self) -> dict[str, Any]:
        """Every field but the key, for JSON. A function as text becomes its name."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "key"}
        if callable(self.text):
            plain["text"] = f"<{getattr(self.text, '__name__', 'function')}>"
        if self.answers is not None:
            plain["answers"] = {
                prompt: answer if isinstance(answer, str) else dict(answer) for prompt, answer in self.answers.items()
            }
        return plain


SERVERS_OWN = frozenset({"models", "key", "slots", "seed", "error_first"})
_ENDS = ("cut_after", "hang_before", "hang_after", "bad_json_after", "error_after")

_Rule = tuple[str, Callable[[Any], bool]]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(low: int, high: int = MOST) -> _Rule:
    return f"a whole number from {low} to {high}", lambda value: _whole(value) and low <= value <= high


def _one_of(*allowed: str) -> _Rule:
    return "one of " + ", ".join(f'"{word}"' for word in allowed), lambda value: value in allowed


def _or_none(rule: _Rule) -> _Rule:
    words, holds = rule
    return f"{words}, or None", lambda value: value is None or holds(value)


def _are_answers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(prompt, str)
        and (
            isinstance(answer, str)
            or (isinstance(answer, Mapping) and all(isinstance(word, str) for pair in answer.items() for word in pair))
        )
        for prompt, answer in value.items()
    )


def _words(least: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, tuple) and len(value) >= least and all(isinstance(name, str) and name for name in value)
    )


# NaN is not between anything, so the bounds refuse it too.
_SECONDS: _Rule = (f"seconds, from 0 to {LONGEST:g}", lambda value: _number(value) and 0 <= value <= LONGEST)
_FLAG: _Rule = ("true or false", lambda value: isinstance(value, bool))
_SHARE: _Rule = ("a share, from 0 to 1", lambda value: _number(value) and 0 <= value <= 1)
_STRING: _Rule = ("text", lambda value: isinstance(value, str))

_RULES: dict[str, _Rule] = {
    "ttft": _SECONDS,
    "itl": _SECONDS,
    "jitter": _SECONDS,
    "tail": _SECONDS,
    "header_delay": _SECONDS,
    "slots": _count(0),
    "seed": _count(0, 2**63 - 1),
    "tokens": _count(1),
    "text": (
        "text, a function of the request's body, or None",
        lambda value: value is None or isinstance(value, str) or callable(value),
    ),
    "echo": _FLAG,
    "answers": ("an object of prompts and answers, or None", lambda value: value is None or _are_answers(value)),
    "reasoning_tokens": _count(0),
    "reasoning_field": _one_of("reasoning_content", "reasoning"),
    "tools": _FLAG,
    "models": ("at least one name", _words(1)),
    "key": (
        "a key of printable ASCII without spaces, or None",
        lambda v: v is None or (isinstance(v, str) and v != "" and all("!" <= character <= "~" for character in v)),
    ),
    "tokens_per_chunk": _count(1),
    "role_only": _FLAG,
    "usage": _one_of("own chunk", "last chunk", "none"),
    "comments": _FLAG,
    "comment_every": _SECONDS,
    "split_utf8": _FLAG,
    "crlf": _FLAG,
    "error_rate": _SHARE,
    "error_first": _count(0),
    "error_status": ("a status from 300 to 599", lambda value: _whole(value) and 300 <= value <= 599),
    "error_body": _or_none(_STRING),
    "retry_after": _or_none(_SECONDS),
    "retry_after_form": _one_of("seconds", "date"),
    "repeat_key": _FLAG,
    "refuses": ("names of fields", _words(0)),
    "cut_after": _or_none(_count(0)),
    "cut": _one_of("fin", "reset"),
    "hang_before": _FLAG,
    "hang_after": _or_none(_count(0)),
    "bad_json_after": _or_none(_count(0)),
    "error_after": _or_none(_count(0)),
}
