"""Starts go through JupyterHub's book-keeping one after another, and whatever becomes of one the next gets its turn."""

import asyncio

import pytest

from hybridspawner import turnstile
from hybridspawner.turnstile import TakesTurns


@pytest.fixture(autouse=True)
def own_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TakesTurns, "_lock", asyncio.Lock())


class Request(TakesTurns):
    """A start that ends its turn when it is told to; `seen` gets its name when its turn comes."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen, self.go_on = name, seen, asyncio.Event()

    async def answer(self) -> None:
        self.seen.append(self.name)
        await self.go_on.wait()

    def begin(self) -> "asyncio.Task[None]":
        return asyncio.ensure_future(self.in_turn(self.answer))


async def others_go_on() -> None:
    await asyncio.sleep(3 * turnstile.PAUSE)


async def test_the_next_comes_when_the_spawner_has_taken_over_in_the_order_of_arrival() -> None:
    seen: list[str] = []
    requests = [Request(name, seen) for name in "abc"]
    tasks = [request.begin() for request in requests]
    await others_go_on()
    assert seen == ["a"]
    requests[0].taken_over()
    requests[0].taken_over()  # once is enough
    await others_go_on()
    assert seen == ["a", "b"] and not tasks[0].done()
    for request in requests:
        request.go_on.set()
    await asyncio.gather(*tasks)
    assert seen == ["a", "b", "c"]


async def test_a_turn_that_fails_or_is_cancelled_is_over() -> None:
    seen: list[str] = []

    async def fail() -> None:
        raise ValueError("no")

    first, second, third = Request("a", seen), Request("b", seen), Request("c", seen)
    failing = asyncio.ensure_future(first.in_turn(fail))
    cancelled, waiting = second.begin(), third.begin()
    with pytest.raises(ValueError):
        await failing
    await others_go_on()
    assert seen == ["b"]
    cancelled.cancel()
    await others_go_on()
    assert cancelled.cancelled() and seen == ["b", "c"]
    third.go_on.set()
    await waiting


async def test_who_is_cancelled_while_waiting_takes_no_turn() -> None:
    seen: list[str] = []
    first, second, third = Request("a", seen), Request("b", seen), Request("c", seen)
    tasks = [first.begin(), second.begin(), third.begin()]
    await others_go_on()
    tasks[1].cancel()
    first.go_on.set()
    third.go_on.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert seen == ["a", "c"]


async def test_a_turn_that_does_not_end_keeps_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnstile, "LONGEST", 0.05)
    seen: list[str] = []
    first, second = Request("a", seen), Request("b", seen)
    tasks = [first.begin(), second.begin()]
    second.go_on.set()
    await tasks[1]
    assert seen == ["a", "b"] and not tasks[0].done()
    first.go_on.set()
    await tasks[0]
