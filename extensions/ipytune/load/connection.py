"""Connections to one endpoint: raw transports whose reads are stamped as they come, and the pool that keeps them.

No proxy: a measurement through one would measure it. No retry: each request goes out once. A kept connection that has
been idle for some seconds is closed rather than used, because servers close theirs about then (uvicorn after five).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from ipytune.endpoints.clocks import Timeouts, within
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.unreachable import trusted
from ipytune.load.flight import Fault, Flight
from ipytune.load.http1 import BadResponse, ResponseReader
from ipytune.load.records import Kind

_IDLE_LIMIT = 3_000_000_000  # nanoseconds
_COMMENT = ord(":")
_FULL = 256  # reads


class ConnectFailed(Exception):
    """No connection; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Connection(asyncio.Protocol):
    """One connection, carrying at most one flight."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._reader = ResponseReader()
        self._flight: Flight | None = None
        self._transport: Any = None
        self.idle_since = 0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.open = True
        self._pool.made(self)

    @property
    def usable(self) -> bool:
        return self.open and not self._transport.is_closing()

    def send(self, request: bytes, flight: Flight) -> None:
        flight.sent = time.monotonic_ns()
        if not self.usable:
            flight.end(flight.sent, fault=Fault(Kind.CUT, "The server closed the connection before it was used."))
            return
        self._reader.reset()
        self._flight = flight
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        flight = self._flight
        if flight is None:  # a server that speaks unasked, or tells an idle client that it closes
            self.abort()
            return
        reader = self._reader
        try:
            body = reader.feed(data)
        except BadResponse as error:
            self._fail(now, Fault(Kind.MALFORMED, f"The server's answer: {error}."))
            return
        if body:
            flight.reads.append((now, body))
            if not flight.first:
                if reader.status == 200:
                    flight.look(now, body)
            elif body[0] != _COMMENT:  # a keep-alive comment does not hide a stall
                flight.gap = now - flight.last
                flight.last = now
                if len(flight.reads) >= _FULL:
                    self._pool.full(flight)
        if reader.complete:
            self._flight = None
            flight.end(now, reader)
            if reader.reusable:
                self._pool.give_back(self, now)
            else:
                self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self._pool.lost(self)
        flight = self._flight
        if flight is None:
            return
        self._flight = None
        now = time.monotonic_ns()
        try:
            self._reader.close()
        except BadResponse as broken:
            why = f"{type(error).__name__}: {error}" if error is not None else str(broken)
            flight.end(now, self._reader, Fault(Kind.CUT, f"The connection broke: {why}."))
        else:
            flight.end(now, self._reader)

    def cancel(self, fault: Fault) -> None:
        """Close in the middle, so that the server stops writing."""
        self._fail(time.monotonic_ns(), fault)

    def abort(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, now: int, fault: Fault) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.end(now, self._reader, fault)
        self.abort()


class Pool:
    """As many connections as there are requests at once; the one used last is used next.

    full: called when so many reads of a flight have come that they should be taken from it.
    """

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts, api_path: str, full: Callable[[Flight], None]) -> None:
        self.full = full
        parts = urlsplit(f"{endpoint.api_root}/{api_path}")
        self._host = parts.hostname or ""
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._connect_seconds = timeouts.connect
        self._context = trusted() if self._tls else None
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        standard = parts.port is None or parts.port == (443 if self._tls else 80)
        host = f"[{self._host}]" if ":" in self._host else self._host.encode("idna").decode()
        path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {host if standard else f'{host}:{self._port}'}\r\n"
            "Content-Type: application/json\r\nAccept: text/event-stream\r\nAccept-Encoding: identity\r\n"
            "User-Agent: ipytune-load\r\n"
        ).encode("ascii")

    def request(self, body: bytes, key: SecretStr | None) -> bytes:
        """The bytes of one request; the key is in these only, from here to the socket."""
        auth = f"Authorization: Bearer {key.get_secret_value()}\r\n".encode("latin-1") if key is not None else b""
        return b"%bContent-Length: %d\r\n%b\r\n%b" % (self._head, len(body), auth, body)

    async def take(self) -> Connection:
        """An idle connection, else a new one. Raises ConnectFailed."""
        now = time.monotonic_ns()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now - connection.idle_since < _IDLE_LIMIT:
                return connection
            connection.abort()
        return await self._open()

    async def warm(self, count: int) -> None:
        """Open connections beforehand, so that no handshake falls into the measurement. Raises ConnectFailed."""
        opened = []
        for start in range(0, count, 64):  # not all at once: a listen queue is short
            opened += await asyncio.gather(*(self._open() for _ in range(start, min(start + 64, count))))
        now = time.monotonic_ns()
        for connection in opened:
            self.give_back(connection, now)

    def give_back(self, connection: Connection, now: int) -> None:
        connection.idle_since = now
        self._idle.append(connection)

    def made(self, connection: Connection) -> None:
        """Also one that nobody waits for any more: close() ends it."""
        self._all.add(connection)

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        for connection in list(self._all):
            connection.abort()
        self._idle.clear()

    async def _open(self) -> Connection:
        opening = asyncio.get_running_loop().create_connection(
            lambda: Connection(self),
            self._host,
            self._port,
            ssl=self._context,
            server_hostname=self._host if self._tls else None,
        )
        try:
            _, connection = await within(opening, self._connect_seconds)
        except asyncio.TimeoutError:  # noqa: UP041  (another class before Python 3.11)
            fault = Fault(Kind.CONNECT, f"No connection within {self._connect_seconds:g} s.")
        except ssl.SSLCertVerificationError as error:
            fault = Fault(Kind.REFUSED, f"The certificate is not trusted: {error.verify_message}. Set SSL_CERT_FILE.")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            fault = Fault(Kind.REFUSED, f"{why}.")
        else:
            return connection
        raise ConnectFailed(fault)
