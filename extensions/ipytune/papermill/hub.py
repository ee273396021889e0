"""A hub's REST API, as far as one session needs it: start, follow, renew its lease, stop.

Every call is one request that says what it found; the order of calls is `session`'s affair. A hub that does not answer
(it is being restarted, the network is away) is asked again for as long as the caller's patience lasts. What only this
project's hubs have, leases and a stream of events that outlives JupyterHub's, a stock JupyterHub may lack.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from ipytune.endpoints.untrusted import one_line
from ipytune.papermill.errors import HubSilent, RequestRefused
from ipytune.papermill.settings import SCOPES

AWAY = (502, 503, 504)
"""A proxy's answers while what is behind it does not answer."""
PATIENCE = 900.0
"""Seconds for which a hub may be silent while a session lives: a restart takes one minute, maintenance some more."""
_PAUSE = 1.0  # seconds between two questions to a hub that is away


class State(Enum):
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    GONE = "gone"


class Renewal(Enum):
    RENEWED = "renewed"
    NO_LEASE = "no lease"  # a session without one
    UNKNOWN = "unknown"  # no such session, or a hub without leases


@dataclass(frozen=True)
class Event:
    """One line of a start. The last has `ready` or `failed`; a failure may come in parts."""

    message: str
    at: float | None = None
    ready: bool = False
    failed: bool = False
    what: str = ""
    why: str = ""
    remedy: str = ""


class Token(httpx.Auth):
    """Puts the token into the header at the last moment; holds it where no repr or traceback shows it."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        request.headers["Authorization"] = f"token {self._token.get_secret_value()}"
        yield request


class Hub:
    """Blocking calls; one object may be used from several threads. root: the hub's address without `/hub`."""

    def __init__(self, root: str, token: SecretStr) -> None:
        self.root = root
        self._http = httpx.Client(base_url=f"{root}/", auth=Token(token), timeout=httpx.Timeout(30, connect=10))

    def close(self) -> None:
        self._http.close()

    def owner(self, patience: float) -> str:
        """The name of the user whose token this is."""
        answer = self._asked("GET", "hub/api/user", patience=patience)
        if answer.status_code in (401, 403):
            raise RequestRefused(
                f"The hub at {self.root} does not take this token.",
                f"It answers: {said(answer)}.",
                f"Get another at {self.root}/hub/token, with the scopes {SCOPES}.",
            )
        model = _object(answer) if answer.status_code == 200 else {}
        if not isinstance(model.get("name"), str):
            raise RequestRefused(
                f"There is no JupyterHub at {self.root}.",
                f"Its answer ({answer.status_code}) to the question whose token this is holds no name.",
                "Set OBERALP_HUB to the address of the hub in your browser.",
            )
        if model.get("kind") == "service":
            raise RequestRefused(
                "This token belongs to a service, which has no sessions.",
                remedy="Name the user whose sessions it may start in OBERALP_USER.",
            )
        return str(model["name"])

    def start(self, user: str, server: str, request: dict[str, str], patience: float) -> None:
        """Ask for a session. Returns once the hub has it on record; RequestRefused, with its words, if it will not."""
        deadline = time.monotonic() + patience
        while True:
            try:
                answer = self._http.post(_server(user, server), json={"user_options": request}, timeout=120)
            except httpx.TransportError as error:  # it may have arrived all the same
                if self.state(user, server, max(0.0, deadline - time.monotonic())) is not State.GONE:
                    return
                _or_silent(self.root, error, deadline)
                continue
            if answer.status_code in AWAY and _from_proxy(answer):
                _or_silent(self.root, f"it answers {answer.status_code}", deadline)
                continue
            if answer.status_code in (201, 202):
                return
            raise self._refusal(answer, user)

    def _refusal(self, answer: httpx.Response, user: str) -> RequestRefused:
        if answer.status_code == 400:
            return RequestRefused("The hub refuses the request.", said(answer))
        if answer.status_code in (401, 403, 404):
            return RequestRefused(
                f"This token may not start sessions of {user}.",
                f"The hub answers {answer.status_code}: {said(answer)}.",
                f"Get one at {self.root}/hub/token, with the scopes {SCOPES}.",
            )
        return RequestRefused(
            "The session could not be started.", f"The hub answers {answer.status_code}: {said(answer)}."
        )

    def state(self, user: str, server: str, patience: float) -> State:
        """What the hub knows of the session now."""
        answer = self._asked("GET", f"hub/api/users/{quote(user, safe='')}", patience=patience)
        if answer.status_code != 200:
            raise self._refusal(answer, user)
        servers = _object(answer).get("servers")
        if not isinstance(servers, dict):
            raise RequestRefused(
                f"This token may not see the sessions of {user}.",
                remedy=f"Get one at {self.root}/hub/token, with the scopes {SCOPES}.",
            )
        return state_of(servers.get(server))

    def events(self, user: str, server: str) -> Iterator[Event]:
        """The events of a start from the first one, to its end. httpx.HTTPError when the stream breaks."""
        ours = f"hub/api/hybridspawner/sessions/{quote(user, safe='')}/{quote(server, safe='')}"
        for path in (ours, f"{_server(user, server)}/progress"):
            with self._http.stream("GET", path, timeout=httpx.Timeout(60, connect=10)) as stream:
                if stream.status_code == 404:
                    continue  # a stock JupyterHub, or no such session
                stream.raise_for_status()
                for line in stream.iter_lines():
                    if line.startswith("data:") and (event := read_event(line[5:])) is not None:
                        yield event
                return

    def renew(self, user: str, server: str) -> Renewal:
        """Renew the lease. httpx.TransportError, or HTTPStatusError, if the hub did not do what was asked."""
        path = f"hub/api/hybridspawner/leases/{quote(user, safe='')}/{quote(server, safe='')}"
        answer = self._http.post(path)
        if answer.status_code in (404, 405):
            return Renewal.UNKNOWN
        if answer.status_code == 409:
            return Renewal.NO_LEASE
        answer.raise_for_status()
        return Renewal.RENEWED

    def end(self, user: str, server: str) -> None:
        """Ask for the end of the session and of its name. Whether it came, `state` says."""
        self._http.request("DELETE", _server(user, server), json={"remove": True}, timeout=60)

    def _asked(self, method: str, path: str, patience: float) -> httpx.Response:
        deadline = time.monotonic() + patience
        while True:
            try:
                answer = self._http.request(method, path)
            except httpx.TransportError as error:
                _or_silent(self.root, error, deadline)
                continue
            if answer.status_code not in AWAY:
                return answer
            _or_silent(self.root, f"it answers {answer.status_code}", deadline)


def state_of(server: Any) -> State:
    """The state of a session by the hub's model of it, None where there is none.

    >>> [state_of(s).value for s in (None, {"ready": False, "pending": "spawn"}, {"ready": True, "pending": None})]
    ['gone', 'starting', 'ready']
    """
    if not isinstance(server, dict) or server.get("stopped"):
        return State.GONE
    if server.get("pending") == "stop":
        return State.STOPPING
    if server.get("ready"):
        return State.READY
    return State.STARTING if server.get("pending") else State.GONE


def read_event(data: str) -> Event | None:
    """An event of the stream; None for what is none."""
    try:
        told = json.loads(data)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    at = told.get("at")
    texts = {name: one_line(str(told.get(name) or ""), 1000) for name in ("message", "what", "why", "remedy")}
    return Event(
        at=float(at) if isinstance(at, (int, float)) else None,
        ready=told.get("ready") is True,
        failed=told.get("failed") is True,
        **texts,
    )


def said(answer: httpx.Response) -> str:
    """The words of a refusal, on one line."""
    words = _object(answer).get("message") or answer.reason_phrase
    return one_line(str(words), 1000).rstrip(".")


def _server(user: str, server: str) -> str:
    return f"hub/api/users/{quote(user, safe='')}/servers/{quote(server, safe='')}"


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _from_proxy(answer: httpx.Response) -> bool:
    """Whether a 5xx is the proxy's own: the hub's refusals are JSON."""
    return not _object(answer)


def _or_silent(root: str, reason: object, deadline: float) -> None:
    """Wait a moment, or raise HubSilent once the deadline has passed."""
    if time.monotonic() + _PAUSE > deadline:
        raise HubSilent(
            f"The hub at {root} does not answer.",
            f"The last attempt: {one_line(str(reason), 200)}.",
            "Check the address, your network, and whether the site announces maintenance.",
        ) from None
    time.sleep(_PAUSE)
