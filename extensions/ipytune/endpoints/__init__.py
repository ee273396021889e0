"""Endpoints: OpenAI-compatible servers, asked from a notebook or a script, and one started for what was just tuned.

    from ipytune.endpoints import Endpoint, chat, serve

`chat` needs httpx only; `serve` starts another process, so torch is imported neither here nor by the caller.
"""

from ipytune.endpoints.background import chat, models
from ipytune.endpoints.client import Answer, Client, Piece, Timeouts
from ipytune.endpoints.errors import (
    BadRequest,
    EndpointError,
    KeyMissing,
    ModelNotFound,
    RateLimited,
    ServerFailed,
    StreamCut,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from ipytune.endpoints.metrics import Metrics
from ipytune.endpoints.records import Endpoint

__all__ = [
    "Answer",
    "BadRequest",
    "Client",
    "Endpoint",
    "EndpointError",
    "KeyMissing",
    "Metrics",
    "ModelNotFound",
    "Piece",
    "RateLimited",
    "ServerFailed",
    "StreamCut",
    "TimedOut",
    "Timeouts",
    "Unauthorized",
    "Unreachable",
    "chat",
    "models",
]
