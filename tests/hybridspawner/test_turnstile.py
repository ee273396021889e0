"""Starts go through JupyterHub's book-keeping one after another, and whatever becomes of one the next gets its turn."""

import asyncio

import pytest

from hybridspawner import turnstile
from hybridspawner.turnstile import Turn, Turnstile


async def others_go_on() -> None:
    await asyncio.sleep(3 * turnstile.PAUSE)


async def test_turns_come_in_the_order_of_arrival_once_the_one_before_is_over() -> None:
    gate = Turnstile()
    first = await gate.turn()
    waiting = [asyncio.ensure_future(gate.turn()) for _ in range(2)]
    await others_go_on()
    assert not waiting[0].done()
    first.over()
    first.over()  # once is enough
    await others_go_on()
    assert waiting[0].done() and not waiting[1].done()
    waiting[0].result().over()
    assert isinstance(await waiting[1], Turn)


async def test_between_two_turns_is_a_pause() -> None:
    gate = Turnstile()
    (await gate.turn()).over()
    began = asyncio.get_running_loop().time()
    await gate.turn()
    assert asyncio.get_running_loop().time() - began >= turnstile.PAUSE / 2


async def test_who_is_cancelled_while_waiting_takes_no_turn() -> None:
    gate = Turnstile()
    first = await gate.turn()
    cancelled, waiting = (asyncio.ensure_future(gate.turn()) for _ in range(2))
    await others_go_on()
    cancelled.cancel()
    first.over()
    await waiting
    assert cancelled.cancelled()


async def test_a_turn_that_does_not_end_keeps_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnstile, "LONGEST", 0.05)
    gate = Turnstile()
    await gate.turn()  # and never over
    await asyncio.wait_for(gate.turn(), 5)


async def test_a_target_that_is_slow_to_take_a_session_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnstile, "LONGEST", 1000)
    monkeypatch.setattr(turnstile, "HANDING_OVER", 0.05)
    gate = Turnstile()
    first = await gate.turn()
    first.booked()
    await asyncio.wait_for(gate.turn(), 5)
    first.booked()  # it is over already: nothing to end again
