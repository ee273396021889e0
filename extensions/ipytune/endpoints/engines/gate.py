"""`python -m ipytune.endpoints.engines.gate DIRECTORY ENGINE IDENTITY`: the engine's door for jupyter-server-proxy.

A request that comes through jupyter-server-proxy carries the hub's token in Authorization: the hub wants it there, and
passes it on. So the engine's key cannot ride in the same header. This door lets in who shows
- the engine's key, or
- a token that the session's own Jupyter server lets in (IDENTITY is its URL that says so): whoever may use the session
  may use what it serves, with the hub's rules for sharing and for revoking.
Then it puts the engine's key in the place of what was shown, so that the engine never sees a hub's token, and passes
the request to ENGINE and the answer back, piece by piece. It listens on 127.0.0.1, on a port that it finds and writes
to DIRECTORY/gate-port. Nothing that was shown is kept: answers about tokens are remembered under their hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
import time
from collections.abc import Awaitable, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import httpx
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets

_REMEMBER = 60.0  # seconds that a token's admission holds; the Jupyter server itself remembers longer
_REMEMBER_REFUSED = 5.0
_MOST_TOKENS = 1000
_MOST_BODY = 64 * 1024**2  # bytes; long prompts with pictures
# Of one connection, not of the message; and what the engine's answer is framed with here.
_FRAMING = {"connection", "keep-alive", "transfer-encoding", "content-length"}
_PROXYING = {"te", "trailer", "upgrade", "proxy-authenticate", "proxy-authorization"}
_HOP = _FRAMING | _PROXYING | {"host", "authorization", "cookie"}
_ANSWER_HOP = _FRAMING | {"date", "server", "set-cookie"}

Ask = Callable[[str], Awaitable[bool]]


class Door:
    """Decides by what a request shows. ask: whether the Jupyter server lets in this Authorization header."""

    def __init__(self, key: str, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = f"Bearer {key}".encode()
        self._ask = ask
        self._clock = clock
        self._known: dict[bytes, tuple[bool, float]] = {}

    async def admits(self, shown: str) -> bool:
        """shown: the Authorization header, "" when there was none."""
        if not shown:
            return False
        if hmac.compare_digest(shown.encode(), self._key):
            return True
        mark = hashlib.sha256(shown.encode()).digest()
        admitted, until = self._known.get(mark, (False, 0.0))
        if self._clock() < until:
            return admitted
        admitted = await self._ask(shown)
        if len(self._known) >= _MOST_TOKENS:
            self._known.clear()
        self._known[mark] = (admitted, self._clock() + (_REMEMBER if admitted else _REMEMBER_REFUSED))
        return admitted


class Passing(web.RequestHandler):
    """One request to the engine and its answer back."""

    def initialize(self, door: Door, http: httpx.AsyncClient, engine: str, key: str) -> None:
        self._door = door
        self._http = http
        self._engine = engine
        self._bearer = f"Bearer {key}"
        self._passing: asyncio.Task[None] | None = None

    def check_xsrf_cookie(self) -> None:
        """No cookie admits anybody here, so none can be abused."""

    async def _handle(self, _: str) -> None:
        if not await self._door.admits(self.request.headers.get("Authorization", "")):
            self._refuse(401, "This endpoint wants its key, or a token that this Jupyter session lets in.")
            return
        passing = self._passing = asyncio.ensure_future(self._pass())
        try:
            await asyncio.wait({passing})
        finally:
            passing.cancel()
        if passing.cancelled():
            return  # by on_connection_close: nobody is left to answer
        error = passing.exception()
        if isinstance(error, StreamClosedError):
            return
        if isinstance(error, httpx.HTTPError):
            if not self._headers_written:
                self._refuse(502, f"The engine does not answer: {type(error).__name__}.")
            else:
                # An orderly end would look like the end of the answer: the client must see that it was cut.
                self.request.connection.stream.close()  # type: ignore[union-attr]
        elif error is not None:
            raise error

    get = post = put = delete = patch = options = head = _handle

    async def _pass(self) -> None:
        headers = [(n, v) for n, v in self.request.headers.get_all() if n.lower() not in _HOP]
        query = f"?{self.request.query}" if self.request.query else ""
        request = self._http.build_request(
            self.request.method or "GET",
            f"{self._engine}{self.request.path}{query}",
            headers=[*headers, ("Authorization", self._bearer)],
            content=self.request.body or None,
        )
        response = await self._http.send(request, stream=True)
        try:
            self.set_status(response.status_code)
            self.clear_header("Content-Type")
            self.clear_header("Server")
            for name, value in response.headers.multi_items():
                if name.lower() not in _ANSWER_HOP:
                    self.add_header(name, value)
            await self.flush()
            async for piece in response.aiter_raw():
                self.write(piece)
                await self.flush()
        finally:
            await response.aclose()

    def on_connection_close(self) -> None:
        """The client has gone: the engine need not write on."""
        if self._passing is not None:
            self._passing.cancel()

    def _refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self.finish({"error": {"message": message, "code": status}})


def application(key: str, engine: str, identity: str, http: httpx.AsyncClient) -> web.Application:
    """engine: the engine's address, without /v1.   identity: asked with a request's own Authorization header."""

    async def ask(shown: str) -> bool:
        try:
            answer = await http.get(identity, headers={"Authorization": shown}, timeout=10.0)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    settings = {"door": Door(key, ask), "http": http, "engine": engine, "key": key}
    return web.Application([(r"/(.*)", Passing, settings)], log_function=lambda handler: None)


def no_cookies() -> CookieJar:
    """A jar that takes none: a Jupyter server answers a good token with a login cookie, and with that in our jar it
    would let in the next token, whatever it is."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


async def main(directory: Path, engine: str, identity: str) -> None:
    key = (directory / "key").read_text(encoding="ascii").strip()
    timeouts = httpx.Timeout(None, connect=10.0)  # how long an answer may take is for the client to say
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(trust_env=False, timeout=timeouts, limits=limits, cookies=no_cookies()) as http:
        server = HTTPServer(application(key, engine, identity, http), max_body_size=_MOST_BODY)
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        beside = directory / "gate-port.new"
        beside.write_text(str(sockets[0].getsockname()[1]), encoding="ascii")
        beside.rename(directory / "gate-port")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
