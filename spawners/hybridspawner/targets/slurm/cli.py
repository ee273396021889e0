"""Slurm through its own commands on the hub's machine, as the user or as the hub.

Commands are executed, never given to a shell; the script and the environment of a job travel on stdin through
`launcher.py`, so that nothing secret shows in `ps`. Reading the queue and the nodes is always done by the hub itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
import sys
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ...capacity import Access, NodeCapacity
from . import parse
from .client import JobReading, SlurmError, SlurmUnavailable, Submission, SubmitRefused

log = logging.getLogger(__name__)

LAUNCHER = Path(__file__).with_name("launcher.py")
_NO_ANSWER = (
    "unable to contact slurm controller",
    "socket timed out",
    "connection refused",
    "communication connection failure",
    "zero bytes were transmitted",
    "slurm controller (primary) is in standby",
    "slurm backup controller in standby",
    "protocol authentication error",
    "unable to establish",
    "resource temporarily unavailable",
    "transport endpoint is not connected",
)
_UNKNOWN_JOB = ("invalid job id",)
_NO_ACCOUNTING = ("accounting storage is disabled", "sacct cannot be run")
_KEPT = ("PATH", "LANG", "LC_ALL", "SLURM_CONF", "LD_LIBRARY_PATH", "TZ")


class CommandLine:
    """`SlurmClient` by sbatch, squeue, scancel, scontrol, sacct and sinfo. Times in seconds."""

    submit_patience = 45.0

    def __init__(
        self, run_as: Literal["user", "hub"] = "user", bin: str | None = None, gres: str = "gpu", timeout: float = 30
    ) -> None:
        self._run_as, self._gres, self._timeout = run_as, gres, timeout
        self._environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        if bin:
            self._environment["PATH"] = f"{bin}:{self._environment.get('PATH', os.defpath)}"

    async def submit(self, job: Submission) -> str:
        argv = ["sbatch", "--parsable", f"--comment={job.mark}", f"--chdir={job.directory}"]
        # the launcher ends sbatch when its time is up, also if the hub that asked is gone by then
        request = {"argv": argv, "environment": job.environment, "stdin": job.script, "timeout": self._timeout}
        try:
            output = await self._as_user(job.user, request)
            return parse.job_id(output)
        except SlurmUnavailable:
            raise
        except (SlurmError, ValueError) as error:
            raise SubmitRefused(str(error)) from None

    async def cancel(self, job_id: str, user: str) -> None:
        try:
            await self._as_user(user, {"argv": ["scancel", "--quiet", job_id]})
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            if not _says(error, _UNKNOWN_JOB):
                raise

    async def queue(self) -> dict[str, JobReading]:
        argv = ["squeue", "--noheader", "--all", "--states=all", f"--format={parse.SQUEUE_FORMAT}"]
        return parse.squeue(await self._as_hub(argv))

    async def marked(self, prefix: str) -> dict[str, JobReading]:
        argv = ["squeue", "--noheader", "--all", "--states=all", "--format=%i|%k"]
        found = {}
        for mark, job_id in parse.marks(await self._as_hub(argv), prefix).items():
            # a comment with line breaks can pretend to be other jobs: each job's own record decides
            record = await self._record(job_id)
            if record is not None and record[0] == mark:
                found[mark] = record[1]
        return found

    async def finished(self, ids: Collection[str]) -> dict[str, JobReading]:
        columns = "JobIDRaw,State,ExitCode,Reason"
        argv = ["sacct", "--parsable2", "--noheader", "--allocations", f"--jobs={','.join(ids)}", f"--format={columns}"]
        try:
            known = parse.sacct(await self._as_hub(argv))
        except SlurmUnavailable as error:
            if not _says(error, _NO_ACCOUNTING):
                raise
            known = {}
        for job_id in ids:  # accounting lags behind, or there is none
            if job_id not in known or not known[job_id].ended:
                record = await self._record(job_id)
                if record is not None:
                    known[job_id] = record[1]
        return known

    async def _record(self, job_id: str) -> tuple[str, JobReading] | None:
        """The controller's record of a job, with its mark; None if it knows the job no more."""
        try:
            return parse.scontrol_job(await self._as_hub(["scontrol", "--oneliner", "show", "job", job_id]))
        except SlurmUnavailable:
            raise
        except SlurmError:
            return None

    async def nodes(self) -> tuple[NodeCapacity, ...]:
        argv = ["sinfo", "--Node", "--noheader", "--exact", f"--Format={parse.SINFO_FIELDS}"]
        return parse.sinfo(await self._as_hub(argv), self._gres)

    async def rights(self) -> dict[str, Access]:
        return {}

    async def estimate(self, job: Submission) -> datetime | None:
        return None

    async def tail(self, path: str, user: str, lines: int) -> str:
        try:
            text = await self._as_user(user, {"tail": path, "bytes": 200 * lines})
        except SlurmError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    async def _as_user(self, user: str, request: dict[str, Any]) -> str:
        sudo = ["sudo", "-n", "-H", "-u", user, "--"] if self._run_as == "user" else []
        python = "/usr/bin/python3" if self._run_as == "user" and Path("/usr/bin/python3").exists() else sys.executable
        environment = {k: v for k, v in self._environment.items() if k != "LD_LIBRARY_PATH"}
        own = {**request, "environment": {**environment, **request.get("environment", {})}}
        return await self._run([*sudo, python, "-I", str(LAUNCHER)], json.dumps(own).encode(), self._own_environment())

    async def _as_hub(self, argv: list[str]) -> str:
        """A question. Slurm either answers, or says that it has no such job (SlurmError), or nothing is known."""
        try:
            return await self._run(argv, b"", self._own_environment())
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            if _says(error, _UNKNOWN_JOB):
                raise
            raise SlurmUnavailable(str(error)) from None

    def _own_environment(self) -> dict[str, str]:
        account = pwd.getpwuid(os.getuid())
        return {"HOME": account.pw_dir, "USER": account.pw_name, "SHELL": "/bin/bash", **self._environment}

    async def _run(self, argv: list[str], stdin: bytes, environment: dict[str, str]) -> str:
        """Output of a command; SlurmUnavailable or SlurmError with its words if it fails or is slow."""
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            raise SlurmUnavailable(f"{argv[0]} cannot be run: {error.strerror}") from None
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), self._timeout)
        except asyncio.TimeoutError:
            raise SlurmUnavailable(f"{argv[0]} did not answer within {self._timeout:.0f} s") from None
        finally:
            if process.returncode is None:
                try:
                    process.kill()
                except ProcessLookupError:
                    pass
        if process.returncode == 0:
            return out.decode(errors="replace")
        message = err.decode(errors="replace").strip() or f"{argv[0]} ended with status {process.returncode}"
        failure = SlurmError(message)
        if _says(failure, _NO_ANSWER) or process.returncode in (126, 127):
            raise SlurmUnavailable(message)
        raise failure


def _says(error: Exception, phrases: Collection[str]) -> bool:
    text = str(error).lower()
    return any(phrase in text for phrase in phrases)
