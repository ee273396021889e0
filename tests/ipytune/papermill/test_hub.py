"""What a hub's answers mean for a run, by literal answers; the calls themselves are in tests/hub/test_engine.py."""

import re
from collections.abc import Callable

import httpx
import pytest
from pydantic import SecretStr

from ipytune.papermill import hub as module
from ipytune.papermill.errors import HubSilent, RequestRefused
from ipytune.papermill.hub import Event, Hub, Renewal, State, read_event, state_of
from ipytune.papermill.session import seconds, server_name

Answering = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def hub_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answering], Hub]:
    """A hub that answers as told, without a network."""

    def make(answering: Answering) -> Hub:
        made = Hub("https://hub.example.org/base", SecretStr("s3cret"))
        made._http = httpx.Client(
            base_url=made._http.base_url, auth=made._http.auth, transport=httpx.MockTransport(answering)
        )
        return made

    monkeypatch.setattr(module, "_PAUSE", 0.0)
    return make


@pytest.mark.parametrize(
    ("server", "state"),
    [
        (None, State.GONE),
        ({"ready": True, "pending": None}, State.READY),
        ({"ready": False, "pending": "spawn"}, State.STARTING),
        ({"ready": False, "pending": "check"}, State.STARTING),  # after a restart of the hub
        ({"ready": True, "pending": "stop"}, State.STOPPING),
        ({"ready": False, "pending": None, "stopped": True}, State.GONE),
        ({"ready": False, "pending": None}, State.GONE),
    ],
)
def test_states(server: dict | None, state: State) -> None:
    assert state_of(server) is state


def test_the_token_is_in_the_header_and_nowhere_else(hub_of: Callable[[Answering], Hub]) -> None:
    seen: list[httpx.Request] = []

    def answering(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"name": "ada", "kind": "user"})

    hub = hub_of(answering)
    assert hub.owner(patience=0) == "ada"
    assert seen[0].headers["Authorization"] == "token s3cret"
    assert str(seen[0].url) == "https://hub.example.org/base/hub/api/user"
    assert "s3cret" not in repr(vars(hub))


def test_names_are_quoted(hub_of: Callable[[Answering], Hub]) -> None:
    paths: list[str] = []

    def answering(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path.decode())
        return httpx.Response(201)

    hub_of(answering).start("a/b@c", "nb-1", {}, patience=0)
    assert paths == ["/base/hub/api/users/a%2Fb%40c/servers/nb-1"]


def test_a_proxy_without_its_hub_is_waited_for(hub_of: Callable[[Answering], Hub]) -> None:
    answers = [httpx.Response(503, text="Service Unavailable"), httpx.Response(200, json={"servers": {}})]
    assert hub_of(lambda _: answers.pop(0)).state("ada", "nb-1", patience=10) is State.GONE


def test_and_not_for_ever(hub_of: Callable[[Answering], Hub]) -> None:
    def answering(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(HubSilent, match="does not answer"):
        hub_of(answering).state("ada", "nb-1", patience=-1)


def test_a_request_whose_answer_is_lost_is_not_made_twice(hub_of: Callable[[Answering], Hub]) -> None:
    posted = []

    def answering(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            posted.append(request)
            raise httpx.ReadError("cut")
        return httpx.Response(200, json={"servers": {"nb-1": {"ready": False, "pending": "spawn"}}})

    hub_of(answering).start("ada", "nb-1", {}, patience=10)
    assert len(posted) == 1


@pytest.mark.parametrize(("status", "words"), [(400, "profile: no"), (403, "may not start sessions"), (500, "500")])
def test_refusals_are_told_in_the_hubs_words(hub_of: Callable[[Answering], Hub], status: int, words: str) -> None:
    with pytest.raises(RequestRefused, match=words):
        hub_of(lambda _: httpx.Response(status, json={"message": "profile: no"})).start("ada", "nb-1", {}, patience=0)


@pytest.mark.parametrize(
    ("status", "renewal"), [(200, Renewal.RENEWED), (404, Renewal.UNKNOWN), (409, Renewal.NO_LEASE)]
)
def test_renewals(hub_of: Callable[[Answering], Hub], status: int, renewal: Renewal) -> None:
    assert hub_of(lambda _: httpx.Response(status, json={})).renew("ada", "nb-1") is renewal


def test_a_stock_hub_is_followed_by_its_own_progress(hub_of: Callable[[Answering], Hub]) -> None:
    def answering(request: httpx.Request) -> httpx.Response:
        if "hybridspawner" in request.url.path:
            return httpx.Response(404)
        return httpx.Response(200, text='data: {"message": "a", "progress": 1}\n\ndata: {"ready": true}\n\n')

    assert list(hub_of(answering).events("ada", "nb-1")) == [Event("a"), Event("", ready=True)]


@pytest.mark.parametrize("data", ["", "x", "[]", "1", "null"])
def test_what_is_no_event_is_passed_over(data: str) -> None:
    assert read_event(data) is None


def test_a_session_is_named_after_its_notebook_and_never_twice_the_same() -> None:
    names = {server_name("/x/Übung 3: LoRA.ipynb") for _ in range(50)}
    assert len(names) == 50
    for name in [*names, server_name("-"), server_name("x" * 300), server_name("s3://bucket/a.ipynb")]:
        assert re.fullmatch(r"nb-[a-z0-9-]{1,24}-[0-9a-f]{6}", name), name


def test_the_pace_of_renewing() -> None:
    assert [seconds(text) for text in ("00:02:00", "01:00:00", "00:00:30", "x", "-1")] == [120, 3600, 30, 120, 120]
