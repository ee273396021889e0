"""One connection: requests in, answers out, one after another. The edge of the server; decisions are in service.py."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from time import monotonic_ns
from typing import Any

from ipytune.mock import ledger
from ipytune.mock.answering import Answer
from ipytune.mock.reader import BadHead, Request, RequestReader
from ipytune.mock.request import Refused
from ipytune.mock.service import Service
from ipytune.mock.siblings import ask_all

_MOST_PIPELINED = 256
_COMPLETIONS = {"/v1/chat/completions": True, "/v1/completions": False}


async def listen(service: Service, host: str, port: int, *, shared: bool = False) -> asyncio.Server:
    """Accept connections for the service. Raises OSError when the port is taken."""
    return await service.loop.create_server(
        lambda: Connection(service), host, port, backlog=4096, reuse_port=shared or None
    )


class Connection(asyncio.Protocol):
    """asyncio switches Nagle's delay off by itself, so each write leaves at once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reader = RequestReader()
        self._left: deque[tuple[Request, int]] = deque()
        self._answer: Answer | None = None
        self._gathering: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._service.ledger.connections += 1
        self._service.closing.add(transport.abort)

    def connection_lost(self, error: Exception | None) -> None:
        service, transport = self._service, self._transport
        assert transport is not None
        self._transport = None
        service.ledger.connections -= 1
        service.closing.discard(transport.abort)
        if self._answer is not None:
            service.cancel(self._answer)
            self._answer = None
        if self._gathering is not None:
            self._gathering.cancel()

    def pause_writing(self) -> None:
        self._service.ledger.blocked += 1

    def data_received(self, data: bytes) -> None:
        arrival = monotonic_ns()
        try:
            requests = self._reader.feed(data)
        except BadHead as error:
            self._hopeless(error)
            return
        self._left.extend((request, arrival) for request in requests)
        if len(self._left) > _MOST_PIPELINED:
            self._hopeless(BadHead(400, "Too many requests at once on one connection."))
            return
        self._next()
        if self._reader.wants_continue and not self._busy and self._transport is not None:
            self._reader.wants_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def _busy(self) -> bool:
        return self._answer is not None or self._gathering is not None

    def _next(self) -> None:
        while self._left and not self._busy and self._transport is not None and not self._transport.is_closing():
            request, arrival = self._left.popleft()
            try:
                self._route(request, arrival)
            except Refused as refused:
                self._refuse(request, refused)

    def _route(self, request: Request, arrival: int) -> None:
        service, transport = self._service, self._transport
        assert transport is not None
        path, _, query = request.path.partition("?")
        if path in _COMPLETIONS:
            _only(request, "POST")
            # The answer may be over before accept returns; what is remembered then is that nothing is.
            chat = _COMPLETIONS[path]
            answer = service.accept(request, arrival, transport, lambda: self._answered(request), chat=chat)
            self._answer = None if answer.over else answer
        elif path == "/health":
            _only(request, "GET")
            self._send(request, 200, b"", "text/plain")
        elif path == "/metrics" or path.startswith("/mock/"):
            if path == "/metrics":
                _only(request, "GET")
            elif not service.allowed(request):
                raise Refused(401, "This server wants its key: Authorization: Bearer ...", code="401")
            if service.siblings and query != "own":
                self._gathering = service.loop.create_task(self._gather(request, path))
            elif path == "/metrics":
                page = service.ledger.prometheus(service.behaviour.models, service.waiting)
                self._send(request, 200, page.encode(), "text/plain; version=0.0.4; charset=utf-8")
            else:
                self._send_json(request, 200, service.control(request.method, path, request.body))
        elif path == "/v1/models" or path.startswith("/v1/models/"):
            _only(request, "GET")
            if not service.allowed(request):
                raise Refused(401, "This server wants its key: Authorization: Bearer ...", code="401")
            self._models(request, path.removeprefix("/v1/models").strip("/"))
        else:
            raise Refused(404, f"There is nothing at {path}. The API is under /v1.", kind="NotFoundError")

    def _models(self, request: Request, name: str) -> None:
        listed = self._service.models()
        if not name:
            self._send_json(request, 200, listed)
            return
        for model in listed["data"]:
            if model["id"] == name:
                self._send_json(request, 200, model)
                return
        raise Refused(404, f"The model `{name}` does not exist.", kind="NotFoundError", param="model")

    async def _gather(self, request: Request, path: str) -> None:
        """Several processes share the port: their counts are one."""
        service = self._service
        try:
            answers = await ask_all(service.siblings, request.method, path, request.body, service.behaviour.key)
            for status, raw in answers:
                if status != 200:
                    self._send(request, status, raw, "application/json")
                    break
            else:
                if path == "/metrics":
                    page = ledger.added([raw.decode() for _, raw in answers])
                    self._send(request, 200, page.encode(), "text/plain; version=0.0.4; charset=utf-8")
                else:
                    self._send_json(request, 200, ledger.merged(path, [json.loads(raw) for _, raw in answers]))
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            self._refuse(request, Refused(503, f"Another process of this mock does not answer: {error}"))
        finally:
            self._gathering = None
        self._next()

    def _answered(self, request: Request) -> None:
        self._answer = None
        if self._transport is None:
            return
        if not request.keep:
            self._transport.close()
        elif self._left:
            # Not from within the answer that has just ended: its caller still has to finish with it.
            self._service.loop.call_soon(self._next)

    def _hopeless(self, error: BadHead) -> None:
        """Where the next request would begin is not known."""
        transport = self._transport
        if transport is None:
            return
        if self._busy:
            transport.abort()
            return
        closing = Request("", "", {}, b"", keep=False)
        self._refuse(closing, Refused(error.status, str(error)))

    def _refuse(self, request: Request, refused: Refused) -> None:
        if refused.raw is not None:
            kind = "text/html" if refused.raw.lstrip().startswith("<") else "application/json"
            self._send(request, refused.status, refused.raw.encode(), kind, refused.headers)
        else:
            self._send_json(request, refused.status, refused.body, refused.headers)

    def _send_json(self, request: Request, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        self._send(request, status, raw, "application/json", headers)

    def _send(
        self, request: Request, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        transport = self._transport
        if transport is None:
            return
        lines = [f"HTTP/1.1 {status} {_phrase(status)}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        lines.append(f"Date: {formatdate(usegmt=True)}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if not request.keep:
            lines.append("Connection: close")
        transport.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        if not request.keep:
            transport.close()


def _only(request: Request, method: str) -> None:
    if request.method != method:
        raise Refused(405, f"{request.path} takes {method}.", headers={"Allow": method})


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
