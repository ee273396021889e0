"""A program that is being started holds up nobody who ends."""

import asyncio
from asyncio.subprocess import PIPE

import pytest

from hybridspawner.program import kill, start_program


async def test_it_starts_as_asyncio_s_own_and_says_what_is_missing() -> None:
    process = await start_program("/bin/cat", stdin=PIPE, stdout=PIPE)
    assert await process.communicate(b"hello") == (b"hello", None) and process.returncode == 0
    with pytest.raises(FileNotFoundError):
        await start_program("/no/such/program")


@pytest.mark.parametrize("rounds", range(12))
async def test_it_ends_when_all_tasks_are_cancelled_as_by_a_hub_that_ends(rounds: int) -> None:
    async def talk() -> None:
        process = await start_program("/bin/sleep", "600", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        try:
            await process.communicate()
        finally:
            kill(process)

    talking = asyncio.ensure_future(talk())
    for _ in range(rounds):
        await asyncio.sleep(0)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    _, hanging = await asyncio.wait(tasks, timeout=30)
    assert not hanging and talking.cancelled()
