"""ASGI middleware: 401 for every HTTP request without the key, except /health.

On a shared node anybody may reach 127.0.0.1. vLLM by itself wants its key under /v1 only, and answers questions
elsewhere too (/invocations, /tokenize, /metrics).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class RequireKey:
    """key: by default what VLLM_API_KEY holds. Raises KeyError when that is not set: never open by mistake."""

    def __init__(self, app: App, key: str | None = None) -> None:
        self._app = app
        self._expected = f"Bearer {key or os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket" and not self._allowed(scope):
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and scope["path"] != "/health" and not self._allowed(scope):
            body = b'{"error": {"message": "This server wants its key: Authorization: Bearer ...", "code": 401}}'
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)
