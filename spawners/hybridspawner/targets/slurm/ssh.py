"""Slurm's commands on a login node, over one SSH connection that is kept and made anew when it is lost.

The host key is always checked. The remote shell sees one quoted command line that does not vary (launcher.py);
everything of a job goes through stdin, and so through the encrypted channel.
"""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import asyncssh

from ...within import within
from .client import SlurmUnavailable
from .runner import Finished

_SESSIONS = 8
"""Commands at a time on one connection: below sshd's MaxSessions, which is 10 where the site has not changed it."""


class SshRunner:
    """`Runner` on the machine `host`. Without `key_file`, the agent of $SSH_AUTH_SOCK signs. Times in seconds."""

    remote = True

    def __init__(
        self,
        host: str,
        port: int = 22,
        user: str | None = None,
        key_file: str | None = None,
        known_hosts: str | None = None,
        connect_timeout: float = 10,
    ) -> None:
        self._host, self._port, self._user, self._key_file = host, port, user, key_file
        self._known_hosts = str(Path(known_hosts or "~/.ssh/known_hosts").expanduser())
        self._connect_timeout = connect_timeout
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._sessions = asyncio.Semaphore(_SESSIONS)

    async def run(self, argv: list[str], stdin: bytes, environment: dict[str, str], timeout: float) -> Finished:
        """`environment` is not sent: sshd would refuse it; the launcher gets it on stdin."""
        try:
            return await within(self._run(shlex.join(argv), stdin), timeout)
        except asyncio.TimeoutError:
            raise SlurmUnavailable(f"{self._host} did not answer within {timeout:g} s") from None
        except (asyncssh.Error, OSError) as error:
            raise SlurmUnavailable(f"no SSH connection to {self._host}: {error}") from None

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed()
            self._connection = None

    async def _run(self, command: str, stdin: bytes) -> Finished:
        async with self._sessions:
            connection = await self._connected()
            process: asyncssh.SSHClientProcess[bytes] = await connection.create_process(command, encoding=None)
            try:
                out, err = await process.communicate(stdin)
            finally:
                process.close()
        if process.exit_status is None or process.exit_status < 0:  # the connection or the command was cut off
            raise SlurmUnavailable(f"the command on {self._host} ended without a status")
        return Finished(process.exit_status, _text(out), _text(err))

    async def _connected(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                if not await asyncio.to_thread(Path(self._known_hosts).is_file):
                    raise SlurmUnavailable(f"{self._known_hosts} is missing: put {self._host}'s host key into it")
                self._connection = await asyncssh.connect(
                    self._host,
                    self._port,
                    username=self._user or (),
                    client_keys=[self._key_file] if self._key_file else (),
                    agent_path=None if self._key_file else (),
                    known_hosts=self._known_hosts,
                    config=None,
                    connect_timeout=self._connect_timeout,
                    login_timeout=self._connect_timeout,
                    keepalive_interval=10,
                    keepalive_count_max=3,
                )
            return self._connection


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
