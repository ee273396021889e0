"""One session of a run, from the request to the proof of its end.

- It has a name of its own, so it neither meets nor ends another session of its user.
- Inside `with session:` it lives; its lease is renewed from a thread of its own, also while cells run.
- On the way out it is stopped whatever happened, and that it is gone is seen, not assumed.
- A client that is killed stops nothing; then the lease does.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from types import TracebackType

import httpx

from ipytune.papermill.errors import EngineError, HubSilent, SessionEnded, StartFailed
from ipytune.papermill.hub import PATIENCE, Event, Hub, Renewal, State
from ipytune.papermill.settings import Settings

STOPPING = 120.0
"""Seconds for which the end of a session is waited for. The lease ends what takes longer."""
NO_LEASE = (
    "This hub gives no lease: if this program is killed outright, the session runs on until it is stopped by hand or "
    "reaches its time limit"
)
GO_ON = "The output holds the cells that finished; `ipytune run --resume` goes on after them."


def server_name(notebook: str) -> str:
    """A new name for the session of `notebook`: says what runs there, never twice the same, and at most 30 of the
    characters of a host name, as JupyterHub demands since version 6.

    >>> server_name("/home/me/02 LoRA in depth.ipynb")[:-6]
    'nb-02-lora-in-depth-'
    """
    stem = notebook.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".ipynb")
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:20].strip("-")
    return f"nb-{slug or 'notebook'}-{secrets.token_hex(3)}"


def seconds(lease: str) -> float:
    """The length of a lease for the pace of renewing it; two minutes where the hub's judgement is still to come.

    >>> seconds("00:01:30"), seconds("soon")
    (90.0, 120.0)
    """
    match = re.fullmatch(r"(\d{1,3}):([0-5]?\d):([0-5]?\d)", lease.strip(), re.ASCII)
    if match is None:
        return 120.0
    hours, minutes, rest = (int(part) for part in match.groups())
    return max(3.0, hours * 3600.0 + minutes * 60 + rest)


class Session:
    """See the module. say: told a line whenever something happens; from any thread."""

    def __init__(self, hub: Hub, settings: Settings, notebook: str, say: Callable[[str], None]) -> None:
        self.hub, self._settings, self._say = hub, settings, say
        self.user = settings.user or ""
        self.name = server_name(notebook)
        self._over = threading.Event()
        self._asked = self._granted = False
        self._renewing: threading.Thread | None = None
        self.on_end: Callable[[EngineError], None] = lambda error: None
        """Told, by the thread that renews, that the session is over."""

    @property
    def path(self) -> str:
        """Of the session's own server, below the hub's address."""
        return f"user/{self.user}/{self.name}"

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._asked:
            self.stop()

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Ask for the session and wait until it is ready. StartFailed, RequestRefused or HubSilent otherwise."""
        self.user = self.user or self.hub.owner(patience=30)
        request = dict(self._settings.request)
        self._say(f"Asking {self.hub.root} for the session {self.name}: {_shown(request)}")
        self._asked = True  # from here on there may be something to stop
        self.hub.start(self.user, self.name, request, patience=60)
        self._granted = True
        self._renewing = threading.Thread(target=self._renew, args=(seconds(request["lease"]),), daemon=True)
        self._renewing.start()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        told: set[tuple[str, float | None]] = set()
        silent_since: float | None = None
        while True:
            try:
                for event in self.hub.events(self.user, self.name):
                    silent_since = None
                    if event.failed:
                        raise _failure(event)
                    if event.ready:
                        self._say("The session is ready")
                        return
                    if (event.message, event.at) not in told:
                        told.add((event.message, event.at))
                        self._say(event.message)
            except httpx.HTTPError:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > 3:
                    self._say("The hub does not answer; waiting for it")
            state = self.hub.state(self.user, self.name, patience=PATIENCE)
            if state is State.READY:
                self._say("The session is ready")
                return
            if state is State.GONE:
                raise StartFailed("The session has ended before it was ready.", "The hub knows it no more.")
            time.sleep(0.5)

    # --- the lease ---------------------------------------------------------------------------------------------------

    def _renew(self, lease: float) -> None:
        pause, renewed, unknown = 0.0, False, 0
        while not self._over.wait(pause):
            pause = min(5.0, lease / 6)  # the hub is away, or in trouble, or does not know: soon again
            try:
                renewal = self.hub.renew(self.user, self.name)
            except httpx.HTTPError:
                continue
            except RuntimeError:
                return  # the client was closed: the run is over
            if renewal is Renewal.RENEWED:
                pause, renewed, unknown = lease / 3, True, 0
                continue
            if renewal is Renewal.UNKNOWN:
                if (error := self._gone()) is not None:
                    if not self._over.is_set():
                        self.on_end(error)
                    return
                unknown += 1
                if renewed or unknown < 3:
                    continue  # a hub that has just been restarted
            if not self._over.is_set():
                self._say(NO_LEASE)
            return

    def _gone(self) -> SessionEnded | None:
        """The end of the session, if the hub knows it no more."""
        try:
            return self.ended()
        except EngineError:
            return None

    def ended(self, patience: float = 0) -> SessionEnded | None:
        """Why the session is over, or None if the hub still has it. HubSilent if the hub does not say."""
        if self.hub.state(self.user, self.name, patience) not in (State.GONE, State.STOPPING):
            return None
        why = "The hub knows it no more: it reached its time limit, was stopped, or its node failed."
        try:
            last = next((event for event in self.hub.events(self.user, self.name) if event.failed), None)
        except httpx.HTTPError:
            last = None
        if last is not None and last.why:
            why = f"{last.why} {last.remedy}".strip()
        return SessionEnded("The session ended while the notebook ran.", why, GO_ON)

    # --- stop --------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the session and wait until the hub knows it no more. If that takes too long it is said, not raised."""
        self._over.set()
        deadline, said = time.monotonic() + STOPPING, False
        while time.monotonic() < deadline:
            try:
                self.hub.end(self.user, self.name)
                for _ in range(6):
                    if self.hub.state(self.user, self.name, patience=0) is State.GONE:
                        if self._granted:
                            self._say("The session is stopped")
                        return
                    time.sleep(0.5)
            except (httpx.HTTPError, HubSilent):
                if not said:
                    self._say("The hub does not answer; waiting for it to stop the session")
                    said = True
                time.sleep(1)
        self._say(f"The hub has not ended the session {self.name} yet; it ends when its lease runs out")


def _failure(event: Event) -> StartFailed:
    if event.what:
        return StartFailed(event.what, event.why, event.remedy)
    return StartFailed("The session did not start.", event.message)


def _shown(request: dict[str, str]) -> str:
    return ", ".join(f"{field} {value}" for field, value in request.items() if field != "lease") or "the hub's defaults"
