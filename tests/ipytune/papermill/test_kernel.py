"""The channels of a kernel between two threads: nothing is lost, whoever waits, and a fault reaches who waits."""

import asyncio
import threading
from queue import Empty

import pytest

from ipytune.papermill.errors import SessionEnded
from ipytune.papermill.kernel import Channel


def channel() -> Channel:
    return Channel("shell", lambda message, name: None)


async def test_messages_come_in_order_from_another_thread() -> None:
    shell = channel()

    def fill() -> None:
        for number in range(500):
            shell.put({"number": number})

    thread = threading.Thread(target=fill)
    thread.start()
    assert [(await shell.get_msg(timeout=10))["number"] for _ in range(500)] == list(range(500))
    thread.join()


async def test_a_wait_that_ends_is_empty() -> None:
    with pytest.raises(Empty):
        await channel().get_msg(timeout=0.01)


async def test_a_reader_that_is_cancelled_takes_nothing_along() -> None:
    shell = channel()
    reader = asyncio.ensure_future(shell.get_msg())
    await asyncio.sleep(0)
    reader.cancel()
    shell.put({"number": 1})
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await shell.get_msg(timeout=1) == {"number": 1}


async def test_a_fault_comes_after_what_was_there() -> None:
    shell = channel()
    shell.put({"number": 1})
    waiting = SessionEnded("The session ended.")
    threading.Thread(target=lambda: shell.fail(waiting)).start()
    assert await shell.get_msg() == {"number": 1}
    with pytest.raises(SessionEnded):
        await shell.get_msg()
