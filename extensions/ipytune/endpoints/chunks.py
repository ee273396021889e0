"""One chunk of a streamed answer, of /v1/chat/completions or /v1/completions, read out of its JSON.

Tolerant where servers differ (no `choices` in the usage chunk, `reasoning` or `reasoning_content`, an error object or a
plain error string), strict about the rest: what is no chunk raises UnreadableChunk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ipytune.endpoints.logprobs import TokenLogprob, read_logprobs
from ipytune.endpoints.tool_calls import ToolDelta, read_tool_deltas

DONE = "[DONE]"


class UnreadableChunk(ValueError):
    """The data of an event is neither [DONE] nor a JSON object."""


@dataclass(frozen=True)
class Usage:
    """Tokens as the server counted them."""

    prompt_tokens: int | None
    completion_tokens: int


@dataclass(frozen=True)
class Chunk:
    """What one event adds to an answer. All fields may be absent: a first delta often has only a role."""

    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None
    done: bool = False
    tools: tuple[ToolDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def output(self) -> bool:
        """Whether it holds tokens of the answer itself: words, or a part of a tool call."""
        return bool(self.content) or any(tool.text for tool in self.tools)


def read_chunk(data: str) -> Chunk:
    """The chunk in the data of one event."""
    if data.strip() == DONE:
        return Chunk(done=True)
    try:
        body = json.loads(data)
    except (json.JSONDecodeError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise UnreadableChunk(data[:200])
    if body.get("error"):
        return Chunk(error=error_text(body))
    choice = _first(body.get("choices"))
    delta = choice.get("delta")
    delta = delta if isinstance(delta, dict) else {}
    return Chunk(
        # `text` is a completion's; a refusal of the model is its answer
        content=_text(delta.get("content")) or _text(delta.get("refusal")) or _text(choice.get("text")),
        reasoning=_text(delta.get("reasoning_content")) or _text(delta.get("reasoning")),
        finish_reason=choice.get("finish_reason") if isinstance(choice.get("finish_reason"), str) else None,
        usage=_usage(body.get("usage")),
        tools=read_tool_deltas(delta.get("tool_calls")),
        logprobs=read_logprobs(choice.get("logprobs")),
    )


def error_text(body: Any) -> str:
    """The message in an error body of any of the shapes in use: OpenAI's, FastAPI's `detail`, a plain string."""
    if isinstance(body, dict):
        for field in ("error", "message", "detail"):
            if body.get(field):
                return error_text(body[field])
        return json.dumps(body)
    if isinstance(body, list):
        return "; ".join(error_text(item.get("msg", item) if isinstance(item, dict) else item) for item in body)
    return str(body)


def _first(choices: Any) -> dict[str, Any]:
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict) or not _is_count(value.get("completion_tokens")):
        return None
    prompt = value.get("prompt_tokens")
    return Usage(prompt_tokens=prompt if _is_count(prompt) else None, completion_tokens=value["completion_tokens"])


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
