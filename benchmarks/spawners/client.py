"""Many users of one hub at once, over its REST API: named servers of one user, with the time that each call took."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import httpx

from .contenders import USER, ContenderHub


class HubClient:
    """`statuses` counts every answer, by call; `errors` keeps the first texts of those of 500 and above."""

    def __init__(self, hub: ContenderHub, user: str = USER) -> None:
        self.hub, self.user = hub, user
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.errors: list[str] = []
        self._http = httpx.AsyncClient(
            base_url=hub.url,
            headers={"Authorization": f"token {hub.token}"},
            timeout=httpx.Timeout(150),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=50, keepalive_expiry=4),
            trust_env=False,
        )

    async def __aenter__(self) -> HubClient:
        answer = await self.call("user", "POST", f"/hub/api/users/{self.user}")
        assert answer.status_code in (201, 409), answer.text
        # a token that the hub has made: one from its configuration is hashed 16,384 times for each request (10 ms)
        answer = await self.call("token", "POST", f"/hub/api/users/{self.user}/tokens", json={"scopes": ["inherit"]})
        assert answer.status_code == 201, answer.text
        self._http.headers["Authorization"] = f"token {answer.json()['token']}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def call(self, what: str, method: str, path: str, **options: Any) -> httpx.Response:
        """One request. Connections that break (a hub that was killed) are counted as status 0 and raise."""
        try:
            answer = await self._http.request(method, path, **options)
        except httpx.TransportError:
            self.statuses[what, 0] += 1
            raise
        self.statuses[what, answer.status_code] += 1
        if answer.status_code >= 500 and len(self.errors) < 10:
            self.errors.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer

    @property
    def server_errors(self) -> int:
        """Answers of 500 and above."""
        return sum(n for (_, status), n in self.statuses.items() if status >= 500)

    # --- named servers ---------------------------------------------------------------------------------------------

    def _server(self, name: str) -> str:
        return f"/hub/api/users/{self.user}/servers/{name}"

    async def start(self, name: str) -> int:
        """Ask for a session; the answer's status. JupyterHub answers once it is ready, and after 10 s at the latest."""
        body = {"user_options": self.hub.contender.options}
        return (await self.call("start", "POST", self._server(name), json=body)).status_code

    async def stop(self, name: str, seconds: float = 30) -> int:
        """Cancel or stop, as a user who clicks again while the hub says that it is busy; the last status."""
        deadline = time.monotonic() + seconds
        while True:
            answer = await self.call("stop", "DELETE", self._server(name))
            busy = answer.status_code == 404 or (answer.status_code == 400 and "pending" in answer.text)
            if not busy or time.monotonic() > deadline:  # 404: the request to start has not arrived yet
                return answer.status_code
            await asyncio.sleep(0.3)

    async def servers(self, with_state: bool = False) -> dict[str, dict[str, Any]]:
        """The user's active servers by name; with what the spawner keeps if `with_state` is true."""
        who = {"Authorization": f"token {self.hub.token}"} if with_state else {}  # only an administrator sees the state
        answer = await self.call("look", "GET", f"/hub/api/users/{self.user}", headers=who)
        answer.raise_for_status()
        servers: dict[str, dict[str, Any]] = answer.json()["servers"]
        return servers if with_state else {name: {**s, "state": None} for name, s in servers.items()}

    async def server(self, name: str) -> dict[str, Any] | None:
        answer = await self.call("look", "GET", self._server(name))
        return answer.json() if answer.status_code == 200 else None

    async def is_ready(self, name: str) -> bool:
        server = await self.server(name)
        return bool(server and server["ready"])

    async def reaches(self, name: str) -> bool:
        """Whether the session's own server answers through the proxy."""
        try:
            answer = await self._http.get(f"/user/{self.user}/{name}/api", timeout=10)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and '"light"' in answer.text

    async def events(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """The progress stream of a start, to its end."""
        async with self._http.stream("GET", f"{self._server(name)}/progress", timeout=None) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    async def stop_all(self, seconds: float = 120) -> bool:
        """Stop every active server; True once the hub has none any more."""

        async def none_left() -> bool:
            servers = await self.servers()
            await asyncio.gather(*(self.stop(name, 5) for name, s in servers.items() if s.get("pending") != "stop"))
            return not servers

        return await until(none_left, seconds, 0.5)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, pause: float = 0.1) -> bool:
    """Wait for `condition`; False when it does not hold within `seconds`."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(pause)
    return True


def job_ids(state: Any) -> set[str]:
    """Every job id in what a spawner keeps, wherever in it."""
    if isinstance(state, Mapping):
        own = {str(state["job_id"])} if state.get("job_id") else set()
        return own.union(*(job_ids(value) for value in state.values()))
    if isinstance(state, list):
        return set().union(*(job_ids(value) for value in state))
    return set()
