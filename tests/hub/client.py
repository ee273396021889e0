"""A user of a hub, as a script would be one: log in, start, follow, run a cell, stop. Blocking calls over HTTP."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import websocket

from tests.clusters.slurm.processes import wait_for


class User:
    """Logs in with the password and works with a token of its own from then on."""

    def __init__(self, url: str, name: str, password: str) -> None:
        self.url, self.name = url, name
        self.browser = httpx.Client(base_url=url, follow_redirects=True, timeout=60, trust_env=False)
        self.browser.get("/hub/login")
        self.browser.post(
            "/hub/login", params=self._xsrf(), data={"username": name, "password": password}
        ).raise_for_status()
        answer = self.browser.post(
            f"/hub/api/users/{name}/tokens", params=self._xsrf(), json={}, headers=self._referer()
        )
        answer.raise_for_status()
        self.token: str = answer.json()["token"]
        self.api = httpx.Client(
            base_url=url, headers={"Authorization": f"token {self.token}"}, timeout=120, trust_env=False
        )

    def _xsrf(self) -> dict[str, str]:
        return {
            "_xsrf": next(c.value or "" for c in self.browser.cookies.jar if c.name == "_xsrf" and c.path == "/hub/")
        }

    def _referer(self) -> dict[str, str]:
        return {"Referer": f"{self.url}/hub/home"}

    # -- the three ways in ------------------------------------------------------------------------------------------

    def post(self, options: Any, server: str = "") -> httpx.Response:
        """Ask for a session through REST."""
        return self.api.post(f"/hub/api/users/{self.name}/servers/{server}", json={"user_options": options})

    def form(self, fields: dict[str, str]) -> httpx.Response:
        """Ask for a session through the spawn page."""
        return self.browser.post("/hub/spawn", params=self._xsrf(), data=fields, follow_redirects=False)

    def link(self, options: dict[str, str]) -> httpx.Response:
        """Ask for a session through a link."""
        return self.browser.get(
            "/hub/spawn", params={f"opt-{k}": v for k, v in options.items()}, follow_redirects=False
        )

    # -- a session --------------------------------------------------------------------------------------------------

    def events(self, server: str = "") -> Iterator[dict[str, Any]]:
        """The progress of a start, to its end."""
        path = (
            f"/hub/api/users/{self.name}/servers/{server}/progress"
            if server
            else f"/hub/api/users/{self.name}/server/progress"
        )
        deadline = time.monotonic() + 60
        while True:
            with self.api.stream("GET", path, timeout=httpx.Timeout(300)) as stream:
                for line in stream.iter_lines():
                    if line.startswith("data:"):
                        event = json.loads(line[5:])
                        yield event
                        if event.get("ready") or event.get("failed"):
                            return
                # the hub refuses the stream while it cleans up after a failed start
                assert stream.status_code == 400 and time.monotonic() < deadline, f"no end: {stream.status_code}"
            time.sleep(0.3)

    def start(self, options: dict[str, Any], server: str = "") -> list[dict[str, Any]]:
        """Start a session and wait for it; its events. AssertionError with them if it fails."""
        answer = self.post(options, server)
        assert answer.status_code in (201, 202), answer.text
        events = list(self.events(server))
        assert events[-1].get("ready"), events
        return events

    def stop(self, server: str = "", seconds: float = 90) -> None:
        """Stop a session and wait until the hub has forgotten it."""
        answer = self.api.delete(
            f"/hub/api/users/{self.name}/servers/{server}" if server else f"/hub/api/users/{self.name}/server"
        )
        assert answer.status_code in (202, 204), answer.text
        assert wait_for(lambda: self.model(server) is None, seconds, 0.2), f"{self.name}/{server} is still there"

    def model(self, server: str = "") -> dict[str, Any] | None:
        """The hub's record of an active session, or None."""
        user = self.api.get(f"/hub/api/users/{self.name}").json()
        return user.get("servers", {}).get(server)

    def run_cell(self, code: str, server: str = "", seconds: float = 120) -> str:
        """Run `code` in a new Python kernel of the session; what it printed. AssertionError with the traceback."""
        base = f"/user/{self.name}/{server + '/' if server else ''}api/kernels"
        answer = self.api.post(base, json={"name": "python3"})
        assert answer.status_code == 201, answer.text
        kernel = answer.json()["id"]
        socket = websocket.create_connection(
            f"{self.url.replace('http', 'ws', 1)}{base}/{kernel}/channels",
            header=[f"Authorization: token {self.token}"],
            timeout=seconds,
        )
        try:
            return _execute(socket, code, seconds)
        finally:
            socket.close()
            self.api.delete(f"{base}/{kernel}")


def _execute(socket: websocket.WebSocket, code: str, seconds: float) -> str:
    sent = uuid.uuid4().hex
    header = {
        "msg_id": sent,
        "username": "",
        "session": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    socket.send(
        json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"})
    )
    printed, deadline = "", time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = json.loads(socket.recv())
        if message["parent_header"].get("msg_id") != sent:
            continue
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "stream":
            printed += content["text"]
        elif kind == "error":
            raise AssertionError("\n".join(content["traceback"]))
        elif kind == "status" and content["execution_state"] == "idle":
            return printed
    raise TimeoutError(f"no end of the cell after {seconds:.0f} s; so far: {printed}")
