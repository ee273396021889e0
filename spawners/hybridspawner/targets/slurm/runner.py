"""Where Slurm's commands are run: on this machine, or on a login node (ssh.py). How to run one, not which."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from ...program import kill, start_program
from ...within import within
from .client import SlurmUnavailable


@dataclass(frozen=True)
class Finished:
    """A command that has ended: its exit status and what it printed."""

    status: int
    out: str
    err: str


class Runner(Protocol):
    """Runs one command with some input, or raises SlurmUnavailable: it cannot be run, or its end is not known."""

    remote: bool
    """Whether a shell of another machine reads the command line, which then must not vary with what is asked."""

    async def run(self, argv: list[str], stdin: bytes, environment: dict[str, str], timeout: float) -> Finished:
        """Execute `argv`; `environment` is the command's whole one where the runner can set it. Timeout in seconds."""
        ...

    async def close(self) -> None:
        """Let go of what is kept between commands."""
        ...


class LocalRunner:
    """`Runner` on this machine: exec, no shell."""

    remote = False

    async def run(self, argv: list[str], stdin: bytes, environment: dict[str, str], timeout: float) -> Finished:
        try:
            process = await start_program(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            raise SlurmUnavailable(f"{argv[0]} cannot be run: {error.strerror}") from None
        try:
            out, err = await within(process.communicate(stdin), timeout)
        except asyncio.TimeoutError:
            raise SlurmUnavailable(f"{argv[0]} did not answer within {timeout:g} s") from None
        finally:
            kill(process)
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    async def close(self) -> None:
        pass
