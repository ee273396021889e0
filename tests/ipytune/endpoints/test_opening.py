"""Between a request and its stream: what is imported for it, and a cancellation that comes just as it opens."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from ipytune.endpoints import Client, Endpoint, Timeouts
from ipytune.endpoints.clocks import within
from ipytune.endpoints.opening import _or_closed


class Response:
    def __init__(self) -> None:
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("rounds", range(4))
async def test_a_response_that_comes_as_its_request_is_cancelled_is_closed(rounds: int) -> None:
    sending: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(_or_closed(sending, within(sending, 60)))
    for _ in range(3):
        await asyncio.sleep(0)
    response = Response()
    sending.set_result(response)
    for _ in range(rounds):
        await asyncio.sleep(0)
    was_over = waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert was_over or (waiting.cancelled() and response.closed)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"])
async def test_a_list_of_models_that_never_ends_runs_into_its_clock(head: bytes) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            while head:
                writer.write(b" " * 100)
                await writer.drain()
                await asyncio.sleep(0.01)
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Client(Timeouts(connect=0.3)) as client:
        health = await client.health(Endpoint(name="e", base_url=url, model="m"))
    assert not health.well and "within 0.3 s" in health.problem


def test_the_commands_and_the_catalogue_need_no_torch() -> None:
    modules = "ipytune.endpoints.commands, ipytune.endpoints.catalogue, ipytune.endpoints.naming"
    heavy = "{'torch', 'transformers', 'IPython', 'peft'}"
    script = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
