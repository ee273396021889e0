"""From columns to conversations: messages, prompt and completion, Alpaca, ShareGPT.

A layout is recognised by the names of its columns; `columns` in the configuration maps a file's names to ours. Names
that only look right are suggested, never assumed: learning the wrong column fails silently. Pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipytune.data.findings import Unusable

ROLES = ("system", "user", "assistant")
# What other data sets call the roles.
SPEAKERS = {role: role for role in ROLES} | {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
}
TOOLS = frozenset({"tool", "function", "function_call", "observation", "ipython", "tool_call", "tool_response"})
EXAMPLE = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'


@dataclass(frozen=True)
class Message:
    role: str
    content: str

    def as_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Layout:
    """Columns that a row must have, and those that it may have, with names under which others keep the same."""

    needs: Mapping[str, tuple[str, ...]]
    takes: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.needs, *self.takes)


_SYSTEM = {"system": ("system_prompt", "system_message")}
LAYOUTS: Mapping[str, Layout] = {
    "messages": Layout({"messages": ("message", "chat", "dialog", "dialogue", "turns")}, {}),
    "prompt-completion": Layout(
        {
            "prompt": ("question", "query", "input", "inputs", "request", "user", "problem"),
            "completion": ("answer", "response", "output", "outputs", "target", "reply", "assistant", "solution"),
        },
        _SYSTEM,
    ),
    "alpaca": Layout(
        {"instruction": ("task",), "output": ("response", "answer", "completion", "target")},
        {"input": ("context",), **_SYSTEM},
    ),
    "sharegpt": Layout({"conversations": ("conversation",)}, _SYSTEM),
}
# Columns and fields whose content would be lost; empty ones do no harm.
_REFUSED = {
    **dict.fromkeys(("tools", "functions", "tool_calls", "function_call", "tool_call_id"), "tools"),
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos"), "images, sound or video"),
}
_REFUSED_IN_MESSAGE = _REFUSED | dict.fromkeys(("reasoning_content", "reasoning", "thinking"), "reasoning apart")
_REMEDIES = {
    "tools": "Leave the row out, or write the calls and their results as plain text of the messages",
    "images, sound or video": "Leave the row out: this trains language models on text",
    "reasoning apart": "Put it into the content as the model writes it, for example <think>…</think>",
    "an earlier conversation": "Write the whole conversation as messages",
}


@dataclass(frozen=True)
class Guess:
    """What columns seem to be: a layout and how its names map to the file's (empty when they are the same).

    layout is None when nothing fits or several do; reason says so, in a sentence for the user.
    """

    layout: str | None
    columns: dict[str, str]
    reason: str = ""

    @property
    def certain(self) -> bool:
        """The columns carry our very names."""
        return self.layout is not None and not self.columns


def guess(columns: Iterable[str]) -> Guess:
    """The layout of a file with these columns, by their names; names that only look right come as a mapping."""
    found = list(columns)
    exact = [name for name, layout in LAYOUTS.items() if set(layout.needs) <= set(found)]
    if len(exact) == 1:
        return Guess(exact[0], {})
    if exact:
        return Guess(None, {}, f"the columns fit several layouts: {', '.join(exact)}")
    if {"chosen", "rejected"} <= set(found):
        return Guess(None, {}, "these are preferences (chosen, rejected), and one answer a row is wanted")
    alike = {name: mapping for name, layout in LAYOUTS.items() if (mapping := _alike(layout, found)) is not None}
    if alike:
        name = min(alike, key=lambda name: (len(alike[name]), list(LAYOUTS).index(name)))
        return Guess(name, alike[name])
    return Guess(None, {}, "no layout has these columns")


def choose(columns: Sequence[str], layout: str, mapping: Mapping[str, str]) -> str:
    """The layout of a file: the one that is set, or with `auto` the one that its columns name beyond doubt.

    columns are the file's names; mapping is DataSettings.columns. Raises Unusable with all that there is and a setting
    to write.
    """
    absent = [theirs for theirs in mapping.values() if theirs not in columns]
    if absent:
        raise Unusable(
            f"data.columns names {_listed(absent)}, which the file does not have (it has {_listed(columns)})",
            "Write the names as they stand in the file",
        )
    ours = _renamed(columns, mapping)
    if layout == "auto":
        guessed = guess(ours)
        if not guessed.certain:
            raise Unusable(f"{_unclear(guessed)} (columns: {_listed(columns)})", _advice(guessed, mapping))
        layout = str(guessed.layout)
    unknown = [name for name in mapping if name not in LAYOUTS[layout].names]
    if unknown:
        raise Unusable(
            f"data.columns maps {_listed(unknown)}, which the layout {layout} does not have",
            f"Map {_listed(LAYOUTS[layout].names)}",
        )
    missing = [name for name in LAYOUTS[layout].needs if name not in ours]
    if missing:
        mapped = _alike(LAYOUTS[layout], columns)
        raise Unusable(
            f"the layout {layout} needs {_listed(missing)} (columns: {_listed(columns)})",
            _setting(layout, {**(mapped or dict.fromkeys(missing, "…")), **mapping}),
        )
    return layout


def to_messages(
    values: Mapping[str, Any], layout: str, columns: Mapping[str, str] | None = None
) -> tuple[tuple[Message, ...], int]:
    """The conversation of one row, and how many of its messages, from the first, are given and never learned.

    Given are the messages of a `prompt` that is itself a conversation. Raises Unusable.
    """
    row = {name: values.get(column) for name, column in columns.items()} if columns else {}
    row = {**values, **row}
    for column, kind in _REFUSED.items():
        if row.get(column):
            raise Unusable(f"the column {column!r} holds {kind}", _REMEDIES[kind])
    if row.get("history"):
        raise Unusable("the column 'history' holds an earlier conversation", _REMEDIES["an earlier conversation"])
    if layout in {"messages", "sharegpt"}:
        name = "messages" if layout == "messages" else "conversations"
        return _system(row) + _messages(row.get(name), name), 0
    if layout == "alpaca":
        asked = _text(row, "instruction")
        more = row.get("input") and _text(row, "input").strip()
        question = f"{asked}\n\n{more}" if more else asked
        return (*_system(row), Message("user", question), Message("assistant", _text(row, "output"))), 0
    prompt, completion = row.get("prompt"), row.get("completion")
    said = _messages(prompt, "prompt") if _many(prompt) else (Message("user", _text(row, "prompt")),)
    answer = (
        _messages(completion, "completion") if _many(completion) else (Message("assistant", _text(row, "completion")),)
    )
    given = (*_system(row), *said)
    return (*given, *answer), len(given)


def _messages(value: Any, name: str) -> tuple[Message, ...]:
    if isinstance(value, str) and value.lstrip().startswith("["):  # how a conversation stands in a CSV file
        try:
            value = json.loads(value)
        except ValueError as error:
            raise Unusable(f"`{name}` is a text that is not JSON ({error})", f"Write a list: {EXAMPLE}") from error
    if not isinstance(value, list):
        raise Unusable(f"no list `{name}`", f"Write one conversation a line: {EXAMPLE}")
    return tuple([_message(number, raw) for number, raw in enumerate(value, start=1)])


def _message(number: int, raw: object) -> Message:
    if not isinstance(raw, dict):
        raise Unusable(f"message {number} is not an object", 'Write {"role": "user", "content": "…"}')
    said_by = raw["role"] if "role" in raw else raw.get("from")
    content = raw["content"] if "content" in raw else raw.get("value")
    role = SPEAKERS.get(said_by.lower()) if isinstance(said_by, str) else None
    if role is None:
        if isinstance(said_by, str) and said_by in TOOLS:
            raise Unusable(f"message {number} has the role {said_by!r}: tools are not learned", _REMEDIES["tools"])
        raise Unusable(f"message {number} has the role {said_by!r}", f"Use one of {', '.join(ROLES)}")
    if len(raw) > 2 or content is None:
        _refuse_what_would_be_lost(number, role, raw)
    if not isinstance(content, str):
        raise _no_text(number, role, content)
    if not _encodable(content):
        raise Unusable(f"message {number} ({role}) has half of a surrogate pair", "Write the whole character")
    return Message(role, content)


def _refuse_what_would_be_lost(number: int, role: str, raw: Mapping[str, Any]) -> None:
    for field, kind in _REFUSED_IN_MESSAGE.items():
        if raw.get(field):
            raise Unusable(f"message {number} ({role}) has {field}: {kind}", _REMEDIES[kind])
    if raw.get("weight") not in (None, 1, True):
        remedy = "Leave the field out; `data.learn: last` learns the last answer only"
        raise Unusable(f"message {number} ({role}) has a weight of {raw['weight']!r}", remedy)


def _no_text(number: int, role: str, content: object) -> Unusable:
    if content is None:
        return Unusable(f"message {number} ({role}) has no content", "Give the content as one string")
    if isinstance(content, list):
        kinds = {str(part.get("type")) for part in content if isinstance(part, dict)} - {"text", "None"}
        if kinds:
            what = f"message {number} ({role}) holds {', '.join(sorted(kinds))}, not text but parts"
            return Unusable(what, _REMEDIES["images, sound or video"])
    what = f"message {number} ({role}) has content that is not text but {type(content).__name__}"
    return Unusable(what, "Give the content as one string")


def _system(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The system message that stands in a column of its own."""
    return (Message("system", _text(row, "system")),) if row.get("system") else ()


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        kind = "is not there" if value is None else f"is not text but {type(value).__name__}"
        raise Unusable(f"`{name}` {kind}", f"Give {name} as one string")
    if not _encodable(value):
        raise Unusable(f"`{name}` has half of a surrogate pair", "Write the whole character")
    return value


def _many(value: Any) -> bool:
    """Whether a prompt or a completion is itself a conversation, as a list or (from CSV) as its JSON."""
    return isinstance(value, list) or (isinstance(value, str) and value.startswith('[{"role"'))


def _encodable(text: str) -> bool:
    """JSON's escapes can name half of a surrogate pair, which no tokenizer accepts."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _renamed(columns: Iterable[str], mapping: Mapping[str, str]) -> list[str]:
    """The file's columns under our names; a column that is mapped counts under its new name only."""
    ours = {theirs: name for name, theirs in mapping.items()}
    return [ours.get(column, column) for column in columns]


def _alike(layout: Layout, found: Sequence[str]) -> dict[str, str] | None:
    """How a layout's columns could be named in a file, or None when one that it needs has no likely name."""
    by_name = {column.strip().lower().replace(" ", "_"): column for column in reversed(found)}
    mapping: dict[str, str] = {}
    for name, others in (*layout.needs.items(), *layout.takes.items()):
        column = next((by_name[other] for other in (name, *others) if other in by_name), None)
        if column is None or column in mapping.values():
            if name in layout.needs:
                return None
        elif column != name:
            mapping[name] = column
    return mapping


def _unclear(guessed: Guess) -> str:
    if guessed.layout is None:
        return guessed.reason
    return f"the columns look like {guessed.layout}, but are named differently"


def _advice(guessed: Guess, mapping: Mapping[str, str]) -> str:
    if guessed.layout is not None:
        theirs = {name: mapping.get(column, column) for name, column in guessed.columns.items()}
        return _setting(guessed.layout, {**mapping, **theirs})
    if "several" in guessed.reason:
        return "Say which: for example `data: {layout: messages}`"
    needs = "; ".join(f"{name} needs {_listed(layout.needs)}" for name, layout in LAYOUTS.items())
    return f"Rename them, or map them, for example {_example('prompt-completion')} ({needs})"


def _example(layout: str) -> str:
    mapping = ", ".join(f"{name}: …" for name in LAYOUTS[layout].needs)
    return f"`data: {{layout: {layout}, columns: {{{mapping}}}}}`"


def _setting(layout: str, mapping: Mapping[str, str]) -> str:
    pairs = ", ".join(f"{name}: {json.dumps(column, ensure_ascii=False)}" for name, column in mapping.items())
    return f"Write in the configuration `data: {{layout: {layout}, columns: {{{pairs}}}}}`"


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 12} more" if len(listed) > 12 else ""
    return (", ".join(listed[:12]) or "none") + more
