"""What is gathered for a page and for a start: readings, rights and estimates; asked sparingly, and nobody waits long."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hybridspawner import deployment as module
from hybridspawner.capacity import Access, CapacityBoard, NodeCapacity, Reading
from hybridspawner.deployment import Deployment
from hybridspawner.placement import place
from hybridspawner.request import validate
from hybridspawner.targets.base import Launch
from tests.hybridspawner.sites import document, site

GPU = {"profile": "gpu"}
NO_RIGHTS_KNOWN = Access()


class FakeTarget:
    """A target with `free` of four GPUs; `rights` or `start` may be an exception, or None for silence."""

    def __init__(
        self, free: int, rights: Access | Exception | None = NO_RIGHTS_KNOWN, start: float | None = 25
    ) -> None:
        self.free, self.rights, self.start = free, rights, start
        self.asked_for: list[str] = []

    async def read(self) -> Reading:
        node = NodeCapacity("n", 64, 64, 512, 512, {"": 4}, {"": self.free}, True, frozenset({"normal", "debug"}))
        return Reading((node,))

    async def access(self, username: str) -> Access:
        if self.rights is None:
            await asyncio.Event().wait()
        if isinstance(self.rights, Exception):
            raise self.rights
        assert self.rights is not None
        return self.rights

    async def estimate(self, launch: Launch, username: str) -> datetime | None:
        self.asked_for.append(username)
        return datetime.now() + timedelta(minutes=self.start) if self.start is not None else None


def deployed(tmp_path: Path, pods: FakeTarget, alps: FakeTarget, **changes: object) -> Deployment:
    made = Deployment(site(**changes), tmp_path, "http://hub/port")
    made.targets = {"pods": pods, "alps": alps, "here": FakeTarget(0)}  # type: ignore[dict-item]
    made.board = CapacityBoard({name: target.read for name, target in made.targets.items()})
    return made


async def test_a_page_asks_for_estimates_where_one_must_wait_and_once_for_all_users(tmp_path: Path) -> None:
    pods, alps = FakeTarget(4), FakeTarget(0)
    made, request = deployed(tmp_path, pods, alps), validate(GPU, site())
    for user in ("ada", "grace", "ada"):
        seen = await made.outlook(request, set(), user)
    assert pods.asked_for == [] and alps.asked_for == ["ada"]
    assert "about 25 min (an estimate)" in place(request, made.site, seen).reason


async def test_a_start_asks_the_scheduler_only_when_the_choice_depends_on_it(tmp_path: Path) -> None:
    pods, alps = FakeTarget(4), FakeTarget(0, start=5)
    made, request = deployed(tmp_path, pods, alps), validate(GPU, site())
    assert (await made.place(request, set(), "ada")).target == "pods" and alps.asked_for == []
    pods.free = 0
    made.board.ended("pods")
    pods.start = None
    assert (await made.place(request, set(), "ada")).target == "alps" and alps.asked_for == ["ada"]
    chosen = validate({**GPU, "target": "alps", "runtime": "01:00:00"}, site())
    assert (await made.place(chosen, set(), "ada")).target == "alps" and alps.asked_for == ["ada"]


async def test_rights_rule_out_and_their_absence_does_not(tmp_path: Path) -> None:
    made, request = deployed(tmp_path, FakeTarget(0), FakeTarget(4, Access(accounts=()))), validate(GPU, site())
    assert (await made.place(request, set(), "ada")).target == "pods"
    assert (await made.place(request, set())).target == "alps"


@pytest.mark.parametrize("rights", [OSError("refused"), None])
async def test_rights_that_cannot_be_read_rule_nothing_out_and_block_nothing(
    tmp_path: Path, rights: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACCESS_PATIENCE", 0.01)
    made, request = deployed(tmp_path, FakeTarget(0), FakeTarget(4, rights)), validate(GPU, site())
    assert (await made.place(request, set(), "ada")).target == "alps"
    for task in made._asking.values():
        task.cancel()


async def test_sessions_that_wait_or_start_fill_a_target(tmp_path: Path) -> None:
    targets = [{**t, "max_waiting": 1} if t["name"] == "alps" else t for t in document()["targets"]]
    made = deployed(tmp_path, FakeTarget(0), FakeTarget(4), targets=targets)
    request = validate(GPU, made.site)
    assert (await made.place(request, set())).target == "alps"
    with made.starting("alps"):
        placement = await made.place(request, set())
        assert placement.target == "pods" and "1 session waits or starts there already" in placement.reason
    assert (await made.place(request, set())).target == "alps"
