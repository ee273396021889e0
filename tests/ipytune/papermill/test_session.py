"""The life of a run's session, told with a hub that is a table of answers: asked for, renewed, ended, looked for."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyterhub.slugs import is_valid_safe_slug
from pydantic import SecretStr

from ipytune.papermill import hub as hub_module
from ipytune.papermill.errors import EngineError, SessionEnded, StartFailed
from ipytune.papermill.hub import Hub
from ipytune.papermill.session import NO_LEASE, Session, server_name
from ipytune.papermill.settings import Settings

READY = {"ready": True, "pending": None}


class TableHub:
    """events: of the stream. leases: the status of a renewal. why: what the stream says once the session is gone."""

    def __init__(self) -> None:
        self.server: dict[str, Any] | None = None
        self.events: list[dict[str, Any]] = [{"message": "Queued: place 2", "at": 1.0}, {"ready": True}]
        self.leases = 200
        self.why: dict[str, Any] = {"failed": True, "message": "The session is not starting."}
        self.asked: list[str] = []
        self.renewed = threading.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append(f"{request.method} {path}")
        if path == "/hub/api/user":
            return httpx.Response(200, json={"name": "ada", "kind": "user"})
        if "/leases/" in path:
            self.renewed.set()
            return httpx.Response(self.leases if self.server else 404, json={})
        if request.method == "POST":
            self.options = json.loads(request.content)["user_options"]
            self.server = READY
            return httpx.Response(202)
        if request.method == "DELETE":
            self.server = None
            return httpx.Response(204)
        if "/sessions/" in path:
            told = self.events if self.server else [self.why]
            return httpx.Response(200, text="".join(f"data: {json.dumps(event)}\n\n" for event in told))
        return httpx.Response(200, json={"servers": {} if self.server is None else {self.name: self.server}})

    name = ""


@pytest.fixture
def table() -> TableHub:
    return TableHub()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def session(table: TableHub, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr(hub_module, "_PAUSE", 0.0)
    request = {"profile": "gpu-1", "lease": "00:00:03"}
    settings = Settings(hub="https://hub.example.org", token=SecretStr("s3cret"), request=request)
    hub = Hub(settings.hub, settings.token)
    hub._http = httpx.Client(base_url="https://hub.example.org/", transport=httpx.MockTransport(table))
    made = Session(hub, settings, "nightly.ipynb", said.append)
    table.name = made.name
    yield made
    made._over.set()
    hub.close()


def test_it_is_asked_for_followed_and_gone(session: Session, table: TableHub, said: list[str]) -> None:
    with session:
        session.start()
        assert session.path == f"user/ada/{session.name}"
        assert table.options == {"profile": "gpu-1", "lease": "00:00:03"}
        assert table.renewed.wait(10)
    assert table.server is None
    assert [line for line in said if "Queued" in line] == ["Queued: place 2"]
    assert said[-1] == "The session is stopped"


def test_it_is_gone_after_an_error_as_well(session: Session, table: TableHub) -> None:
    with pytest.raises(KeyboardInterrupt), session:
        session.start()
        raise KeyboardInterrupt
    assert table.server is None


def test_nothing_is_stopped_that_was_not_asked_for(session: Session, table: TableHub) -> None:
    with pytest.raises(ValueError), session:
        raise ValueError
    assert table.asked == []


def test_a_start_that_fails_is_told_in_its_parts(session: Session, table: TableHub) -> None:
    table.events = [{"failed": True, "what": "The job was refused.", "why": "No such account.", "remedy": "Ask."}]
    with pytest.raises(StartFailed) as failed, session:
        session.start()
    assert (failed.value.what, failed.value.why, failed.value.remedy) == (
        "The job was refused.",
        "No such account.",
        "Ask.",
    )
    assert table.server is None


def test_a_session_that_is_gone_ends_the_run_with_the_hubs_words(session: Session, table: TableHub) -> None:
    told: list[EngineError] = []
    over = threading.Event()
    table.why = {"failed": True, "what": "It has ended.", "why": "The job reached its time limit.", "remedy": ""}
    with session:
        session.on_end = lambda error: (told.append(error), over.set())[0]
        session.start()
        table.server = None
        assert over.wait(20)
    assert isinstance(told[0], SessionEnded)
    assert "reached its time limit" in str(told[0]) and "--resume" in str(told[0])


@pytest.mark.parametrize("status", [404, 409])
def test_a_hub_without_leases_is_said_once(session: Session, table: TableHub, said: list[str], status: int) -> None:
    table.leases = status
    with session:
        session.start()
        assert session._renewing is not None
        session._renewing.join(20)
        assert said.count(NO_LEASE) == 1
    assert table.server is None


@given(st.text() | st.sampled_from(["07-several-gpus-several-nodes", "08 from notebook-to batch", "-", "ünïcödé"]))
def test_the_name_of_a_session_is_one_that_a_hub_accepts(stem: str) -> None:
    assert is_valid_safe_slug(server_name(f"/home/ada/{stem}.ipynb"))
