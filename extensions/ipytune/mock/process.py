"""`python -m ipytune.mock.process`: a mock server as a child. server.py starts it.

The first line on standard input is what to do, as JSON; the one on standard output says where it listens. When standard
input ends, the parent is gone, and so it ends too, whatever it was doing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from typing import Any

from ipytune.mock.behaviour import Behaviour
from ipytune.mock.connection import listen
from ipytune.mock.service import Service


async def run(order: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    service = Service(Behaviour().changed(order["behaviour"]), loop, order["number"])
    try:
        server = await listen(service, order["host"], order["port"], shared=order["shared"])
        own = await listen(service, "127.0.0.1", 0) if order["shared"] else None
    except OSError as error:
        why = f"{order['host']}, port {order['port']}: {error.strerror or error}"
        _say({"error": f"The mock server cannot listen on {why}. Choose another port, or 0 for a free one."})
        return
    _say({"port": _port(server), "own": _port(own) if own is not None else None})
    # Collecting takes milliseconds, in which no token is written; nothing here makes garbage in circles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)

    def listen_to_parent() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(_take, service, json.loads(line))
        os._exit(0)

    threading.Thread(target=listen_to_parent, name="parent", daemon=True).start()
    await asyncio.Event().wait()


def _take(service: Service, told: dict[str, Any]) -> None:
    service.siblings = tuple(told["siblings"])
    _say({"siblings": len(service.siblings)})


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


if __name__ == "__main__":
    first = sys.stdin.readline()
    if first:
        asyncio.run(run(json.loads(first)))
