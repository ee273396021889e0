"""One pod from creation to proof, against an API server of a few lines that can be silent, late or someone else's."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_asyncio.client.exceptions import ApiException

from hybridspawner.targets.kubernetes import pod as room
from hybridspawner.targets.kubernetes.pod import MARK_LABEL, Occupied, Refused, SessionPod, Silent, nothing_runs

MARK = "jupyterhub-aa-01"
SLEEP = asyncio.sleep


class Server:
    """Keeps one namespace's pods by name. `script` holds what becomes of the next requests to create:

    "ok"; "lost" (never arrives), "unheard" (carried out, the answer is lost), "late" (carried out after the answer was
    given up). `silent` makes every request fail without an answer.
    """

    def __init__(self, *script: str) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.script = list(script)
        self.silent = False
        self.stubborn = False
        self.uids = iter(f"uid{i}" for i in range(1000))
        self.deletes: list[int] = []
        self.api_client = SimpleNamespace(sanitize_for_serialization=lambda pod: pod)

    async def create_namespaced_pod(self, namespace: str, body: Any, **_: Any) -> Any:
        await asyncio.sleep(0)
        how = self.script.pop(0) if self.script else "ok"
        if self.silent or how == "lost":
            raise asyncio.TimeoutError
        if how == "late":
            asyncio.get_running_loop().call_later(0.02, self._keep, body)
            raise asyncio.TimeoutError
        if body["metadata"]["name"] in self.pods:
            raise ApiException(status=409, reason='"AlreadyExists"')
        made = self._keep(body)
        if how == "unheard":
            raise ApiException(status=503, reason="")
        return made

    def _keep(self, body: Any) -> Any:
        name = body["metadata"]["name"]
        return self.pods.setdefault(name, {**body, "metadata": {**body["metadata"], "uid": next(self.uids)}})

    async def read_namespaced_pod(self, name: str, namespace: str, **_: Any) -> Any:
        await asyncio.sleep(0)
        if self.silent:
            raise ConnectionResetError
        if name not in self.pods:
            raise ApiException(status=404, reason="")
        return self.pods[name]

    async def delete_namespaced_pod(self, name: str, namespace: str, body: Any, **_: Any) -> Any:
        found = await self.read_namespaced_pod(name, namespace)
        assert body["preconditions"]["uid"] == found["metadata"]["uid"]
        self.deletes.append(body["gracePeriodSeconds"])
        if not self.stubborn or body["gracePeriodSeconds"] == 0:
            del self.pods[name]


def manifest(mark: str = MARK) -> dict[str, Any]:
    return {"metadata": {"name": "jupyter-ada", "labels": {MARK_LABEL: mark}}, "spec": {"containers": [{}]}}


def session_pod(server: Server, **more: Any) -> SessionPod:
    return SessionPod(server, "sessions", "jupyter-ada", MARK, **{"sent": False, **more})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same waits, a hundred times shorter."""
    for name, seconds in (
        ("CREATE_PATIENCE", 0.05),
        ("REQUEST_SECONDS", 0.01),
        ("SETTLED", 0.03),
        ("FORCE_AFTER", 0.2),
    ):
        monkeypatch.setattr(room, name, seconds)
    monkeypatch.setattr(room.asyncio, "sleep", lambda seconds: SLEEP(seconds / 100))


def soon(seconds: float) -> Any:
    return SLEEP(seconds / 100)


@given(st.lists(st.sampled_from(["ok", "lost", "unheard", "late"]), max_size=4), st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_whatever_becomes_of_its_requests_a_cancelled_creation_ends_without_a_pod(
    script: list[str], turns: int
) -> None:
    async def scenario() -> None:
        server = Server(*script)
        pod = session_pod(server)
        creating = asyncio.ensure_future(pod.create(manifest(), 0.3, lambda: None))
        for _ in range(turns):
            await asyncio.sleep(0)
        pod.unwanted = True
        await asyncio.gather(creating, return_exceptions=True)
        assert await pod.remove(1, 2, soon)
        await SLEEP(0.05)
        assert server.pods == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("script", [["ok"], ["lost", "ok"], ["unheard"], ["late", "lost", "lost", "lost"]])
async def test_a_creation_ends_with_one_pod_whatever_was_lost(script: list[str]) -> None:
    server, changes = Server(*script), []
    pod = session_pod(server)
    await pod.create(manifest(), 1, lambda: changes.append(pod.uid))
    assert [p["metadata"]["uid"] for p in server.pods.values()] == [pod.uid] == changes
    assert pod.unanswered == ("lost" in script)  # who knows whether it is only late


async def test_an_earlier_sessions_pod_is_removed_first() -> None:
    server = Server()
    server._keep(manifest("jupyterhub-aa-00"))
    pod = session_pod(server)
    await pod.create(manifest(), 1, lambda: None)
    assert server.pods["jupyter-ada"]["metadata"] == {
        "name": "jupyter-ada",
        "labels": {MARK_LABEL: MARK},
        "uid": pod.uid,
    }


async def test_another_hubs_pod_of_the_same_name_is_left_alone() -> None:
    server = Server()
    server._keep(manifest("jupyterhub-bb-00"))
    with pytest.raises(Occupied, match="belongs to another hub"):
        await session_pod(server).create(manifest(), 1, lambda: None)
    pod = session_pod(server, sent=True)
    await SLEEP(0.1)
    assert await pod.remove(1, 1, soon)
    assert len(server.pods) == 1


async def test_silence_is_no_absence() -> None:
    server = Server()
    pod = session_pod(server)
    await pod.create(manifest(), 1, lambda: None)
    server.silent = True
    with pytest.raises(Silent):
        await pod.find()
    assert not pod.absence_proved
    assert not await pod.remove(1, 0.1, soon)
    server.silent = False
    assert await pod.remove(1, 1, soon) and server.pods == {}


async def test_a_creation_gives_up_on_a_silent_server_and_leaves_it_open_whether_there_is_a_pod() -> None:
    server = Server()
    server.silent = True
    pod = session_pod(server)
    with pytest.raises(Silent):
        await pod.create(manifest(), 0.05, lambda: None)
    assert pod.unanswered


async def test_a_pod_that_a_dead_hub_may_have_asked_for_is_absent_only_after_a_while() -> None:
    pod = session_pod(Server(), sent=True, marked_at=time.time())
    assert await pod.find() is None and not pod.absence_proved
    await SLEEP(0.1)
    assert await pod.find() is None and pod.absence_proved


async def test_a_pod_that_does_not_end_is_removed_by_force() -> None:
    server = Server()
    server.stubborn = True
    pod = session_pod(server)
    await pod.create(manifest(), 1, lambda: None)
    assert await pod.remove(1, 2, soon)
    assert server.deletes[0] == 1 and server.deletes[-1] == 0


async def test_a_refusal_is_told_and_leaves_nothing_open() -> None:
    class Full(Server):
        async def create_namespaced_pod(self, namespace: str, body: Any, **_: Any) -> Any:
            raise ApiException(status=403, reason="exceeded quota")

    pod = session_pod(Full())
    with pytest.raises(Refused, match="exceeded quota"):
        await pod.create(manifest(), 1, lambda: None)
    assert not pod.unanswered and await pod.find() is None and pod.absence_proved


def test_nothing_runs_only_when_every_container_has_ended_or_cannot_begin() -> None:
    def pod(*states: dict[str, Any]) -> dict[str, Any]:
        statuses = [{"state": state} for state in states]
        return {"spec": {"containers": [{}, {}]}, "status": {"phase": "Pending", "containerStatuses": statuses}}

    ended, stuck = {"terminated": {"exitCode": 0}}, {"waiting": {"reason": "ErrImageNeverPull"}}
    assert nothing_runs(pod(ended, stuck))
    assert not nothing_runs(pod(ended, {"running": {}}))
    assert not nothing_runs(pod(ended, {"waiting": {"reason": "ContainerCreating"}}))
    assert not nothing_runs(pod(ended))
    assert not nothing_runs(pod())
