"""What comes back from a model: pieces as they arrive, and the answer they make, whole or as far as it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ipytune.endpoints.logprobs import TokenLogprob
from ipytune.endpoints.metrics import Metrics
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.tool_calls import ToolCall


@dataclass(frozen=True)
class Piece:
    """Text as it arrives: of the answer, of the reasoning before it, or of a tool call (its name, then its arguments;
    which call it belongs to is in `Answer.tool_calls`)."""

    kind: Literal["content", "reasoning", "tool"]
    text: str


@dataclass(frozen=True)
class Answer:
    """An answer, whole or as far as it came. finish_reason is the server's ("stop", "length", "tool_calls"), None when
    cut or not given. logprobs: one entry a token, if they were asked for and the server has them."""

    endpoint: Endpoint
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    metrics: Metrics = field(default_factory=Metrics)
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
