"""Endpoints: OpenAI-compatible servers, asked from a notebook or a script, and one started for what was just tuned.

    from ipytune.endpoints import Endpoint, chat, serve

`chat` needs httpx only; `serve` starts another process, so torch is imported neither here nor by the caller.
"""

from ipytune.endpoints.answer import Answer, Piece
from ipytune.endpoints.background import chat, complete, health, models
from ipytune.endpoints.client import Client
from ipytune.endpoints.clocks import Timeouts
from ipytune.endpoints.errors import (
    BadRequest,
    BudgetExceeded,
    EndpointError,
    KeyMissing,
    ModelNotFound,
    RateLimited,
    ServerFailed,
    StreamCut,
    TimedOut,
    Unauthorized,
    Unreachable,
    Untrusted,
)
from ipytune.endpoints.health_check import Health
from ipytune.endpoints.logprobs import TokenLogprob
from ipytune.endpoints.metrics import Metrics
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.tool_calls import ToolCall

__all__ = [
    "Answer",
    "BadRequest",
    "BudgetExceeded",
    "Client",
    "Endpoint",
    "EndpointError",
    "Health",
    "KeyMissing",
    "Metrics",
    "ModelNotFound",
    "Piece",
    "RateLimited",
    "ServerFailed",
    "StreamCut",
    "TimedOut",
    "Timeouts",
    "TokenLogprob",
    "ToolCall",
    "Unauthorized",
    "Unreachable",
    "Untrusted",
    "chat",
    "complete",
    "health",
    "models",
]
