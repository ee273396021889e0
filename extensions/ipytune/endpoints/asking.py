"""What is asked of an endpoint: the bodies of requests, checked before anything is sent. Pure.

Options are passed on as they are (temperature, tools, tool_choice, response_format, logprobs, seed, what a server adds
of its own), except that None means "leave it out", and that what this client could not read back is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from ipytune.endpoints.clocks import Timeouts, Waiting
from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.records import Endpoint

Message = Mapping[str, Any]

CHAT, COMPLETIONS = "chat/completions", "completions"


@dataclass(frozen=True)
class Asked:
    """One request. deadline: of the whole, a moment of the monotonic clock."""

    endpoint: Endpoint
    route: str
    body: Mapping[str, Any]
    key: SecretStr | None
    timeouts: Timeouts
    deadline: float

    @property
    def url(self) -> str:
        return f"{self.endpoint.api_root}/{self.route}"

    @property
    def waiting(self) -> Waiting:
        return Waiting(self.endpoint, self.timeouts)


def chat_body(endpoint: Endpoint, messages: Sequence[Message], options: Mapping[str, Any]) -> dict[str, Any]:
    """For /v1/chat/completions. Raises BadRequest."""
    if isinstance(messages, (str, Mapping)) or not messages or not all(isinstance(each, Mapping) for each in messages):
        raise BadRequest(
            "There is nothing to ask.",
            "A chat is a list of messages, at least one.",
            'Give [{"role": "user", "content": "…"}].',
        )
    return {"model": endpoint.model, "messages": [dict(message) for message in messages], **_checked(options)}


def completion_body(endpoint: Endpoint, prompt: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """For /v1/completions. Raises BadRequest."""
    if not isinstance(prompt, str):
        raise BadRequest("A completion's prompt is one text.", "Several would give several answers.", "Ask in turn.")
    return {"model": endpoint.model, "prompt": prompt, **_checked(options)}


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body as JSON. Raises BadRequest naming the field that JSON cannot hold."""
    try:
        return _json(body)
    except (TypeError, ValueError, RecursionError) as error:
        field = next((name for name, value in body.items() if not _fits(value)), "it")
        odd = isinstance(error, UnicodeEncodeError)
        raise BadRequest(
            "The request cannot be sent.",
            f"{field} holds " + ("half a character (a lone surrogate)." if odd else "something that is no JSON."),
            "Give text, numbers, true, false, lists and dictionaries; a schema as its dictionary.",
        ) from None


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("n", "best_of"):
        if given.get(name, 1) != 1:
            raise BadRequest(
                "One request gives one answer here.",
                f"{name}={given[name]!r:.20} asks for several.",
                f"Leave {name} out and ask several times: every answer then has its own times and counts.",
            )
    if not given.get("stream", True):
        raise BadRequest(
            "Answers are always streamed here.",
            "stream=False would hide when tokens come.",
            "Leave stream out; ask() and complete() give the whole answer at once.",
        )
    for name in ("model", "messages", "prompt"):
        if name in given:
            raise BadRequest(
                f"{name} is no option.",
                "It is said by the endpoint." if name == "model" else "It is what is asked.",
                "Use an endpoint of that model." if name == "model" else f"Leave {name} out of the options.",
            )
    return {"stream": True, "stream_options": {"include_usage": True}, **given}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _fits(value: Any) -> bool:
    try:
        _json(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
