"""Conversations from JSON lines: {"messages": [{"role": "user", "content": "…"}, …]}, one a line.

Reading finds what is wrong with the text, the JSON and its types, line by line, and goes on: a user learns of all bad
lines at once. Whether a conversation makes sense is decided in `validate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipytune.data.findings import Finding

ROLES = ("system", "user", "assistant")
EXAMPLE = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'


@dataclass(frozen=True)
class Message:
    role: str
    content: str

    def as_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Example:
    """One conversation and the line (from 1) on which it stands."""

    line: int
    messages: tuple[Message, ...]

    def as_dicts(self) -> list[dict[str, str]]:
        return [message.as_dict() for message in self.messages]


class _Unusable(ValueError):
    """Why one line holds no conversation, and the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def read_jsonl(path: Path | str) -> tuple[list[Example], list[Finding]]:
    """All conversations of a file and what is wrong with its other lines; blank lines are skipped.

    Raises FileNotFoundError.
    """
    path = Path(path)
    examples: list[Example] = []
    findings: list[Finding] = []
    for number, line in _lines(path):
        try:
            examples.append(Example(number, _messages(_object(line))))
        except _Unusable as unusable:
            findings.append(Finding(path, number, unusable.what, unusable.remedy))
    return examples, findings


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # the byte-order mark that some editors put first
            if line.strip():
                yield number, line


def _object(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Unusable(f"not UTF-8 at byte {error.start}", "Save the file as UTF-8") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _Unusable(f"not JSON ({error})", f"Write one whole object a line: {EXAMPLE}") from error
    except RecursionError as error:
        raise _Unusable("nested too deeply", f"Write one flat object a line: {EXAMPLE}") from error
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise _Unusable("no list `messages`", f"Write one conversation a line: {EXAMPLE}")
    return value


def _messages(value: dict[str, Any]) -> tuple[Message, ...]:
    return tuple(_message(number, raw) for number, raw in enumerate(value["messages"], start=1))


def _message(number: int, raw: object) -> Message:
    if not isinstance(raw, dict):
        raise _Unusable(f"message {number} is not an object", 'Write {"role": "user", "content": "…"}')
    role, content = raw.get("role"), raw.get("content")
    if role not in ROLES:
        raise _Unusable(f"message {number} has the role {role!r}", f"Use one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        kind = "no content" if content is None else f"content that is not text but {type(content).__name__}"
        raise _Unusable(f"message {number} ({role}) has {kind}", "Give the content as one string")
    if not _encodable(content):
        raise _Unusable(f"message {number} ({role}) has half of a surrogate pair", "Write the whole character")
    return Message(role, content)


def _encodable(text: str) -> bool:
    """JSON's escapes can name half of a surrogate pair, which no tokenizer accepts."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
