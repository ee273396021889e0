"""Slurm through its own commands, as the user or as the hub, on the hub's machine or on a login node.

Commands are executed, never given to a shell; the script and the environment of a job travel on stdin through
`launcher.py`, so that nothing secret shows in `ps`. Reading the queue and the nodes is always done by the hub itself.
How a command is run is the runner's (runner.py, ssh.py); which ones, and what their answers mean, is decided here.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
import time
from collections.abc import Collection, Container
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ...capacity import Access, NodeCapacity
from . import access, parse
from .answers import ENDED_JOB, NO_ACCOUNTING, NO_ANSWER, NOT_CONNECTED, UNKNOWN_JOB, says
from .client import (
    JobReading,
    OnCall,
    SlurmError,
    SlurmUnavailable,
    SlurmUnreachable,
    Submission,
    SubmitRefused,
    account,
    counted,
    ignore_call,
)
from .runner import Finished, LocalRunner, Runner

LAUNCHER = Path(__file__).with_name("launcher.py")
SYSTEM_PYTHON = "/usr/bin/python3"
_KEPT = ("PATH", "LANG", "LC_ALL", "SLURM_CONF", "LD_LIBRARY_PATH", "TZ")
_REMOTE_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin"


class CommandLine:
    """`SlurmClient` by sbatch, squeue, scancel, scontrol, sacct, sacctmgr and sinfo. Times in seconds.

    `bin` is put before PATH; `variables` are set for Slurm's commands besides (SLURM_CONF). With a remote runner,
    `launcher` is the path of launcher.py over there.
    """

    submit_patience = 45.0

    def __init__(
        self,
        run_as: Literal["user", "hub"] = "user",
        bin: str | None = None,
        gres: str = "gpu",
        timeout: float = 30,
        runner: Runner | None = None,
        launcher: str | None = None,
        variables: dict[str, str] | None = None,
        on_call: OnCall = ignore_call,
    ) -> None:
        self._run_as, self._gres, self._timeout, self._on_call = run_as, gres, timeout, on_call
        self._runner = runner or LocalRunner()
        self._launcher = launcher or str(LAUNCHER)
        own = {} if self._runner.remote else {name: os.environ[name] for name in _KEPT if name in os.environ}
        if bin:
            own["PATH"] = f"{bin}:{own.get('PATH', _REMOTE_PATH)}"
        self._environment = {**own, **(variables or {})}

    async def submit(self, job: Submission) -> str:
        argv = ["sbatch", "--parsable", f"--comment={job.mark}", f"--chdir={job.directory}"]
        try:
            with counted(self._on_call, "submit"):
                request = {"argv": argv, "environment": job.environment, "stdin": job.script}
                output = await self._as_user(job.user, request)
            return parse.job_id(output.out)
        except SlurmUnavailable:
            raise
        except (SlurmError, ValueError) as error:
            raise SubmitRefused(str(error)) from None

    async def cancel(self, job_id: str, user: str) -> None:
        try:
            with counted(self._on_call, "cancel"):
                await self._as_user(user, {"argv": ["scancel", "--quiet", job_id]})
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            if not says(error, UNKNOWN_JOB + ENDED_JOB):
                raise

    async def queue(self) -> dict[str, JobReading]:
        argv = ["squeue", "--noheader", "--all", "--states=all", f"--format={parse.SQUEUE_FORMAT}"]
        return parse.squeue(await self._as_hub("queue", argv))

    async def marked(self, prefix: str, besides: Container[str] = ()) -> dict[str, JobReading]:
        argv = ["squeue", "--noheader", "--all", "--states=all", "--format=%i|%k"]
        found = {}
        for mark, job_id in parse.marks(await self._as_hub("marked", argv), prefix).items():
            if mark in besides:
                continue
            # a comment with line breaks can pretend to be other jobs: each job's own record decides
            record = await self._record(job_id)
            if record is not None and record[0] == mark:
                found[mark] = record[1]
        return found

    async def finished(self, ids: Collection[str]) -> dict[str, JobReading]:
        columns = "JobIDRaw,State,ExitCode,Reason"
        argv = ["sacct", "--parsable2", "--noheader", "--allocations", f"--jobs={','.join(ids)}", f"--format={columns}"]
        try:
            known = parse.sacct(await self._as_hub("finished", argv))
        except SlurmUnavailable as error:
            if not says(error, NO_ACCOUNTING):
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
            return parse.scontrol_job(await self._as_hub("record", ["scontrol", "--oneliner", "show", "job", job_id]))
        except SlurmUnavailable:
            raise
        except SlurmError:
            return None

    async def nodes(self) -> tuple[NodeCapacity, ...]:
        argv = ["sinfo", "--Node", "--noheader", "--exact", f"--Format={parse.SINFO_FIELDS}"]
        nodes = parse.sinfo(await self._as_hub("nodes", argv), self._gres)
        return access.hold(nodes, await self._reservations())

    async def rights(self) -> dict[str, Access]:
        argv = ["sacctmgr", "--noheader", "--parsable2", "show", "assoc", "format=User,Account,Partition,QOS"]
        try:
            associations = parse.associations(await self._as_hub("associations", argv))
        except SlurmUnavailable as error:
            if not says(error, NO_ACCOUNTING):
                raise
            associations = None
        argv = ["scontrol", "--all", "--oneliner", "show", "partition"]
        partitions = parse.partitions(await self._as_hub("partitions", argv))
        reservations = await self._reservations()
        users = {a.user for a in associations or ()} | {u.lstrip("-") for r in reservations for u in r.users}
        members = await self._members(access.groups_of(partitions, reservations), users)
        return access.rights(associations, partitions, reservations, members)

    async def _reservations(self) -> list[access.Reservation]:
        argv = ["scontrol", "--all", "--oneliner", "show", "reservation"]
        return parse.reservations(await self._as_hub("reservations", argv))

    async def _members(self, groups: set[str], users: set[str]) -> dict[str, set[str]]:
        if not groups:
            return {}
        group = await self._command(["getent", "group", *sorted(groups)])
        passwd = await self._command(["getent", "passwd", *sorted(users)]) if users else Finished(0, "", "")
        return parse.members(passwd.out, group.out)  # getent ends with 2 when some of them are unknown

    async def estimate(self, job: Submission) -> datetime | None:
        argv = ["sbatch", "--test-only", f"--chdir={job.directory}"]
        try:
            with counted(self._on_call, "estimate"):
                output = await self._as_user(job.user, {"argv": argv, "stdin": job.script})
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            raise SubmitRefused(str(error)) from None
        return parse.test_only(output.err + "\n" + output.out)

    async def tail(self, path: str, user: str, lines: int) -> str:
        try:
            output = await self._as_user(user, {"tail": path, "bytes": 200 * lines})
        except SlurmError:
            return ""
        return "\n".join(output.out.splitlines()[-lines:])

    async def close(self) -> None:
        await self._runner.close()

    async def _as_user(self, user: str, request: dict[str, Any]) -> Finished:
        sudo = ["sudo", "-n", "-H", "-u", account(user), "--"] if self._run_as == "user" else []
        return _answered(await self._launch(sudo, request))

    async def _launch(self, sudo: list[str], request: dict[str, Any]) -> Finished:
        theirs = bool(sudo) or self._runner.remote
        python = SYSTEM_PYTHON if theirs and (self._runner.remote or Path(SYSTEM_PYTHON).exists()) else sys.executable
        environment = {k: v for k, v in self._environment.items() if k != "LD_LIBRARY_PATH"}
        # the launcher ends the command when its time is up, also if the hub that asked is gone by then
        own = {
            **request,
            "environment": {**environment, **request.get("environment", {})},
            "before": time.time() + self._timeout,
        }
        if "PATH" in environment:
            own["path"] = environment["PATH"]  # the job's PATH is not where this machine has Slurm
        argv = [*sudo, python, "-I", self._launcher]
        return await self._runner.run(argv, json.dumps(own).encode(), self._own_environment(), self._timeout)

    async def _as_hub(self, verb: str, argv: list[str]) -> str:
        """A question. Slurm either answers, or says that it has no such job (SlurmError), or nothing is known."""
        with counted(self._on_call, verb):
            try:
                return _answered(await self._command(argv)).out
            except SlurmUnavailable:
                raise
            except SlurmError as error:
                if says(error, UNKNOWN_JOB):
                    raise
                raise SlurmUnavailable(str(error)) from None

    async def _command(self, argv: list[str]) -> Finished:
        if self._runner.remote:
            return await self._launch([], {"argv": argv})
        finished = await self._runner.run(argv, b"", self._own_environment(), self._timeout)
        return replace(finished, err=finished.err or f"{argv[0]} ended with status {finished.status}")

    def _own_environment(self) -> dict[str, str]:
        account = pwd.getpwuid(os.getuid())
        return {"HOME": account.pw_dir, "USER": account.pw_name, "SHELL": "/bin/bash", **self._environment}


def _answered(finished: Finished) -> Finished:
    """`finished` if it went well; SlurmUnavailable or SlurmError, with its words, if not."""
    if finished.status == 0:
        return finished
    message = finished.err.strip() or f"the command ended with status {finished.status}"
    if says(message, NOT_CONNECTED):
        raise SlurmUnreachable(message)
    if says(message, NO_ANSWER) or finished.status in (126, 127) or finished.status < 0:
        raise SlurmUnavailable(message)
    raise SlurmError(message)
