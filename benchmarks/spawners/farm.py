"""Plays the servers of all simulated jobs: calls the hub for each new job, as its node would, and answers for all."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import httpx
from jupyterhub import __version__ as jupyterhub_version

from .simulated_slurm import COMMANDS, connect

_PROGRAM = Path(__file__).with_name("simulated_slurm.py").resolve()
_ANSWER = b'{"version": "light", "simulated": true}'


class Farm:
    """`path` comes first in the PATH of a hub. Use it as an asynchronous context manager."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "bin"
        self.path.mkdir(parents=True)
        self._file = directory / "jobs.sqlite"
        self._database: sqlite3.Connection = connect(str(self._file))
        self._last = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.refused = 0
        python = getattr(sys, "_base_executable", sys.executable)  # without the packages of a virtual environment
        for name in (*COMMANDS, "sacctmgr"):
            script = self.path / name
            script.write_text(f'#!/bin/sh\nexec {python} -S -E {_PROGRAM} {name} {self._file} "$@"\n')
            script.chmod(0o755)

    @property
    def running(self) -> int:
        return int(self._database.execute("select count(*) from jobs where state = 'RUNNING'").fetchone()[0])

    @property
    def calls(self) -> dict[str, int]:
        """How often each command was called since `forget_calls`."""
        return dict(Counter(command for (command,) in self._database.execute("select command from calls")))

    def forget_calls(self) -> None:
        self._database.execute("delete from calls")

    def end_all(self) -> None:
        self._database.execute("update jobs set state = 'CANCELLED', changed = 0")

    async def __aenter__(self) -> Farm:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self._port = self._server.sockets[0].getsockname()[1]
        self._http = httpx.AsyncClient(trust_env=False, timeout=60)
        self._tasks.append(asyncio.create_task(self._watch()))
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server.close()
        await self._http.aclose()
        self._database.close()

    async def _watch(self) -> None:
        while True:
            query = "select id, environment from jobs where id > ? and state = 'RUNNING' order by id"
            for number, environment in self._database.execute(query, (self._last,)).fetchall():
                self._last = number
                self._tasks.append(asyncio.create_task(self._call_back(json.loads(environment))))
            self._tasks = [task for task in self._tasks if not task.done()]
            await asyncio.sleep(0.2)

    async def _call_back(self, environment: dict[str, str]) -> None:
        url = environment.get("HYBRIDSPAWNER_CALLBACK") or environment["JUPYTERHUB_API_URL"] + "/batchspawner"
        headers = {"Authorization": f"token {environment['JUPYTERHUB_API_TOKEN']}"}
        for _ in range(20):
            try:
                answer = await self._http.post(url, headers=headers, json={"port": self._port})
            except httpx.TransportError:
                await asyncio.sleep(1)
                continue
            self.refused += answer.status_code >= 400
            return

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                f"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: {jupyterhub_version}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(_ANSWER)}\r\nConnection: close\r\n\r\n".encode()
                + _ANSWER
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
