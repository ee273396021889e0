"""What a measurement needs of one streamed event, of the chat and of the completions API alike.

It is the same JSON as endpoints.chunks reads, but no text is kept: with thousands of tokens a second on one core, what
is not needed is not built.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ipytune.endpoints.chunks import DONE


class UnreadableEvent(ValueError):
    """The data is neither [DONE] nor a JSON object."""


class Event(NamedTuple):
    """token: something was generated; output: and it is not reasoning."""

    token: bool = False
    output: bool = False
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: Any = None
    done: bool = False


_TOKEN = Event(token=True, output=True)
_REASONING = Event(token=True)
_NOTHING = Event()
_DONE = Event(done=True)


def read_event(data: str) -> Event:
    """The event in `data`. A role, an empty delta and the usage are no token; reasoning and tool calls are."""
    try:
        body = json.loads(data)
    except (json.JSONDecodeError, RecursionError):
        if data.strip() == DONE:
            return _DONE
        body = None
    if not isinstance(body, dict):
        raise UnreadableEvent(data[:200])
    if body.get("error"):
        return Event(error=body["error"])
    token = output = False
    finish = None
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        choice = choices[0]
        finish = choice.get("finish_reason")
        delta = choice.get("delta")
        if isinstance(delta, dict):
            output = bool(delta.get("content") or delta.get("tool_calls"))
            token = output or bool(delta.get("reasoning_content") or delta.get("reasoning"))
        else:
            token = output = bool(choice.get("text"))
    usage = body.get("usage")
    if finish is None and usage is None:
        if output:
            return _TOKEN
        return _REASONING if token else _NOTHING
    usage = usage if isinstance(usage, dict) else {}
    return Event(
        token,
        output,
        finish if isinstance(finish, str) else None,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
