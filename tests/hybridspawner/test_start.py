"""One start over several targets: it moves when it may, never before the last place is proved empty, and only then."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from hybridspawner import start as module
from hybridspawner.capacity import Fit
from hybridspawner.diagnose import StartFailed
from hybridspawner.events import EventLog
from hybridspawner.placement import Offer, Placement
from hybridspawner.start import Start

NOW = {name: Offer(name, name.title(), Fit.NOW, "free", 0.0, "free", 0.0) for name in ("slurm", "pods")}


class Child:
    """A session that waits until `let_run` is set, or fails with `failure`."""

    def __init__(self, failure: StartFailed | None = None) -> None:
        self.failure, self.waiting, self.let_run = failure, True, asyncio.Event()

    async def start_session(self) -> str:
        if self.failure:
            raise self.failure
        await self.let_run.wait()
        self.waiting = False
        return "http://node:1"


class Host:
    """A site of two targets, the first of which gets `first`. Writes down what happened, in order."""

    answer_timeout = 1.0
    user_groups: set[str] = set()
    username = "ada"

    def __init__(
        self, first: Child, fallback: str = "ask", longest_wait: str = "00:00:01", stuck: bool = False
    ) -> None:
        self.children, self.done, self.stuck = {"slurm": first, "pods": Child()}, [], stuck
        self.children["pods"].let_run.set()
        policy = SimpleNamespace(fallback=fallback, longest_wait=longest_wait)
        site = SimpleNamespace(policy=policy, target=lambda name: SimpleNamespace(title=name.title()))
        self.deployment: Any = SimpleNamespace(
            site=site, place=self.place, capacities=self.capacities, starting=self.starting
        )

    async def place(self, request: Any, groups: Any, user: str) -> Placement:
        return Placement("slurm", "Slurm (free)", tuple(NOW.values()))

    async def capacities(self, request: Any, groups: Any, user: str) -> dict[str, Any]:
        return {}

    @contextmanager
    def starting(self, target: str) -> Iterator[None]:
        yield

    async def begin(self, placement: Placement, request: Any) -> Any:
        self.done.append(f"begin {placement.target}")
        return self.children[placement.target]

    async def leave(self) -> None:
        if self.stuck:
            raise StartFailed("It could not leave.", "No proof.", "Try again.", reason="leftover")
        self.done.append("left")

    def address(self, url: str) -> str:
        return url


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers(*_: object) -> None:
        return None

    def other(*arguments: Any) -> Offer | None:
        left = [offer for name, offer in NOW.items() if name not in arguments[4]]
        return left[0] if left else None

    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "until_answering", answers)
    monkeypatch.setattr(module, "next_target", other)


def begun(host: Host, target: str = "auto") -> tuple[Start, EventLog, asyncio.Task[str]]:
    events = EventLog()
    start = Start(host, SimpleNamespace(target=target, profile="p"), events)  # type: ignore[arg-type]
    return start, events, asyncio.create_task(start.run())


async def offered(events: EventLog) -> None:
    async for event in events.follow():
        if event.offer:
            return


async def test_a_click_moves_a_waiting_session_once_the_first_place_is_empty() -> None:
    host = Host(Child())
    start, events, task = begun(host)
    await asyncio.wait_for(offered(events), 5)
    assert start.move("nowhere") and start.move("slurm")  # refused, with words
    assert start.move("pods") is None
    assert await asyncio.wait_for(task, 5) == "http://node:1"
    assert host.done == ["begin slurm", "left", "begin pods"]
    assert start.move("pods") is not None  # it runs


async def test_by_policy_it_moves_alone_but_only_when_the_choice_was_left_to_the_hub() -> None:
    host = Host(Child(), fallback="auto")
    assert await asyncio.wait_for(begun(host)[2], 5) == "http://node:1"
    assert host.done == ["begin slurm", "left", "begin pods"]
    named = Host(Child(), fallback="auto")
    _, events, task = begun(named, target="slurm")
    await asyncio.wait_for(offered(events), 5)
    named.children["slurm"].let_run.set()
    await asyncio.wait_for(task, 5)
    assert named.done == ["begin slurm"]


async def test_with_never_it_waits() -> None:
    host = Host(Child(), fallback="never")
    _, events, task = begun(host)
    for _ in range(20):
        await asyncio.sleep(0.01)
    host.children["slurm"].let_run.set()
    await asyncio.wait_for(task, 5)
    assert host.done == ["begin slurm"] and not any(event.offer for event in events.events)


async def test_what_cannot_be_proved_gone_is_not_left() -> None:
    host = Host(Child(), fallback="auto", stuck=True)
    with pytest.raises(StartFailed, match="could not leave"):
        await asyncio.wait_for(begun(host)[2], 5)
    assert host.done == ["begin slurm"]


@pytest.mark.parametrize(("reason", "moves"), [("backend_down", True), ("memory", False)])
async def test_a_failure_of_the_target_moves_on_and_one_of_the_request_does_not(reason: str, moves: bool) -> None:
    host = Host(Child(StartFailed("No.", "Why.", "Do.", reason=reason)), fallback="auto")
    task = begun(host)[2]
    if moves:
        assert await asyncio.wait_for(task, 5) == "http://node:1"
        assert host.done == ["begin slurm", "left", "begin pods"]
    else:
        with pytest.raises(StartFailed):
            await asyncio.wait_for(task, 5)


async def test_cancelled_it_ends_at_once_and_leaves_the_end_to_stop() -> None:
    host = Host(Child())
    _, events, task = begun(host)
    await asyncio.wait_for(offered(events), 5)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=0.5)
    assert done and task.cancelled() and host.done == ["begin slurm"]
