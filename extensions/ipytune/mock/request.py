"""What a request asks for: the fields of a chat or text completion that the mock obeys, checked. Pure.

Fields that it does not know are let through, as servers do; those that it knows must have the right form, or Refused
says which has not, with the status and the body that OpenAI's API would give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Refused(Exception):
    """A request that gets no answer.   status, message, kind, param, code: what the error body says.

    raw: sent instead of the body, whatever it is.   headers: sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        raw: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.raw = raw
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True)
class Wanted:
    """prompt: the user's last message, or the prompt.   logprobs: how many alternatives of each token, None for none.

    tools: name -> schema of the arguments.   tool_choice: "auto", "required", "none" or a tool's name.
    after_tool: the last message is a tool's result.   mock: a behaviour for this request alone, not checked yet.
    """

    body: Mapping[str, Any] = field(repr=False)
    chat: bool
    model: str
    prompt: str
    prompt_tokens: int
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    tools: Mapping[str, Any] = field(default_factory=dict)
    tool_choice: str = "auto"
    after_tool: bool = False
    schema: Any = None
    mock: Any = None


def read_wanted(raw: bytes, *, chat: bool) -> Wanted:
    """The request in a body of /v1/chat/completions, or of /v1/completions. Raises Refused."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is no JSON.") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body is no JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _wrong("model", "the name of a model")
    if body.get("n", 1) not in (1, None):
        raise _wrong("n", "1: this server writes one answer a request")
    for name, high in (("temperature", 2), ("top_p", 1)):
        value = body.get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value <= high):
            raise _wrong(name, f"a number from 0 to {high}")
    options = body.get("stream_options")
    if options is not None and not (isinstance(options, dict) and body.get("stream")):
        raise _wrong("stream_options", "an object, and only with stream")
    prompt, count = _messages(body.get("messages")) if chat else _prompt(body.get("prompt"))
    least = 1 if chat else 0
    limit = _whole(body, "max_tokens", least)
    newer = _whole(body, "max_completion_tokens", least) if chat else None
    return Wanted(
        body=body,
        chat=chat,
        model=model,
        prompt=prompt,
        prompt_tokens=count,
        stream=_flag(body, "stream"),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        max_tokens=newer if newer is not None else limit if limit is not None or chat else 16,
        min_tokens=_whole(body, "min_tokens", 0) or 0,
        ignore_eos=_flag(body, "ignore_eos"),
        stop=_stops(body.get("stop")),
        logprobs=_chat_logprobs(body) if chat else _whole(body, "logprobs", 0, 20),
        echo=not chat and _flag(body, "echo"),
        tools=_tools(body.get("tools")) if chat else {},
        tool_choice=_tool_choice(body.get("tool_choice")) if chat else "auto",
        after_tool=chat and body["messages"][-1].get("role") == "tool",
        schema=_schema(body.get("response_format")) if chat else None,
        mock=body.get("mock"),
    )


def _wrong(name: str, allowed: str) -> Refused:
    return Refused(400, f"{name} must be {allowed}.", param=name)


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return bool(value)


def _whole(body: Mapping[str, Any], name: str, low: int, high: int = 10_000_000) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(name, f"a whole number from {low} to {high}")
    return value


def _messages(messages: Any) -> tuple[str, int]:
    """The last words of the user, and the words of all."""
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "a list with at least one message")
    last, count = "", 0
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong("messages", "objects with a role and a content")
        text = _content(message.get("content"))
        count += len(text.split())
        if message["role"] == "user":
            last = text
    return last, max(count, 1)


def _content(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    raise _wrong("messages", "messages whose content is text, or a list of parts")


def _prompt(prompt: Any) -> tuple[str, int]:
    """Text and count of a prompt: text, or numbers of tokens; alone or the only one of a list."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt, max(len(prompt.split()), 1)
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return " ".join(map(str, prompt)), len(prompt)
    raise _wrong("prompt", "one text, or one list of token numbers")


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(stops, list) or not all(isinstance(word, str) and word for word in stops):
        raise _wrong("stop", "text, or a list of texts")
    return tuple(stops)


def _chat_logprobs(body: Mapping[str, Any]) -> int | None:
    top = _whole(body, "top_logprobs", 0, 20)
    if not _flag(body, "logprobs"):
        if top is not None:
            raise _wrong("top_logprobs", "left out, or given with logprobs: true")
        return None
    return top or 0


def _tools(tools: Any) -> dict[str, Any]:
    if tools is None:
        return {}
    try:
        return {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    except (TypeError, KeyError, AttributeError):
        raise _wrong("tools", "a list of functions, each with a name") from None


def _tool_choice(choice: Any) -> str:
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        return choice
    try:
        return str(choice["function"]["name"])
    except (TypeError, KeyError):
        raise _wrong("tool_choice", '"auto", "none", "required", or a function with a name') from None


def _schema(response_format: Any) -> Any:
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema":
        schema = response_format.get("json_schema")
        if isinstance(schema, dict) and isinstance(schema.get("schema"), dict):
            return schema["schema"]
    raise _wrong("response_format", "text, json_object, or json_schema with a schema")
