"""Slurm through its REST API (slurmrestd), with a token of each user.

The version is the newest that the server's OpenAPI document offers and openapi.py knows. Reading is done as the hub's
account, which must be an operator of Slurm where PrivateData hides other people's jobs. There is no trial submit in the
API, so there are no estimates before a submit; a log can be read only where the hub sees the user's files.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import stat
import time
from collections.abc import Callable, Collection, Container
from datetime import datetime
from typing import Any, Literal, TypeVar

import aiohttp

from ...capacity import Access, NodeCapacity
from . import access, openapi
from .answers import ENDED_JOB, NO_ANSWER, UNKNOWN_JOB, says
from .client import (
    JobReading,
    OnCall,
    SlurmError,
    SlurmUnavailable,
    Submission,
    SubmitRefused,
    account,
    counted,
    ignore_call,
)
from .directives import DirectiveError
from .tokens import Fetch, TokenCache

T = TypeVar("T")
_NOTHING_FOUND = ("nothing found",)


class Rest:
    """`SlurmClient` by slurmrestd at `url`. `user` is the hub's own account in Slurm. Timeout in seconds."""

    submit_patience = 120.0  # its own timeout, and what slurmrestd may still do with a request that was given up

    def __init__(
        self,
        url: str,
        fetch: Fetch,
        user: str,
        run_as: Literal["user", "hub"] = "user",
        gres: str = "gpu",
        timeout: float = 30,
        on_call: OnCall = ignore_call,
    ) -> None:
        self._url, self._tokens, self._user, self._run_as = url.rstrip("/"), TokenCache(fetch), user, run_as
        self._gres, self._timeout, self._on_call = gres, timeout, on_call
        self._session: aiohttp.ClientSession | None = None
        self._api: openapi.Api | None = None

    async def submit(self, job: Submission) -> str:
        api = await self._chosen()
        try:
            body = openapi.submission(api, job.script, job.environment, job.mark, job.directory)
        except DirectiveError as error:
            raise SubmitRefused(str(error)) from None
        try:
            answer = await self._ask("submit", "POST", "slurm", "job/submit", self._submitter(job.user), body)
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            raise SubmitRefused(str(error)) from None
        job_id = openapi.number(answer.get("job_id"))
        if not job_id:
            raise SlurmUnavailable("slurmrestd accepted the job and told no id")
        return str(job_id)

    async def cancel(self, job_id: str, user: str) -> None:
        try:
            await self._ask("cancel", "DELETE", "slurm", f"job/{job_id}", self._submitter(user))
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            if not says(error, UNKNOWN_JOB + ENDED_JOB):
                raise

    async def queue(self) -> dict[str, JobReading]:
        return {job_id: reading for job_id, (_, reading) in (await self._jobs("queue")).items()}

    async def marked(self, prefix: str, besides: Container[str] = ()) -> dict[str, JobReading]:
        jobs = await self._jobs("marked")
        return {mark: job for mark, job in jobs.values() if mark.startswith(prefix) and mark not in besides}

    async def _jobs(self, verb: str) -> dict[str, tuple[str, JobReading]]:
        return _read(openapi.jobs, await self._ask(verb, "GET", "slurm", "jobs"))

    async def finished(self, ids: Collection[str]) -> dict[str, JobReading]:
        known: dict[str, JobReading] = {}
        for job_id in ids:  # the controller first: accounting lags behind, and in v0.0.38 loses exit codes
            jobs = _read(openapi.jobs, await self._look("record", "slurm", f"job/{job_id}"))
            known |= {number: reading for number, (_, reading) in jobs.items()}
            if job_id not in known and (await self._chosen()).accounting:
                known |= _read(openapi.records, await self._look("finished", "slurmdb", f"job/{job_id}"))
        return {job_id: known[job_id] for job_id in ids if job_id in known}

    async def _look(self, verb: str, plugin: str, path: str) -> dict[str, Any]:
        """The answer about one job; none are in it if Slurm does not know the job."""
        try:
            return await self._ask(verb, "GET", plugin, path)
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            if not says(error, UNKNOWN_JOB + _NOTHING_FOUND):
                raise SlurmUnavailable(str(error)) from None
            return {"jobs": []}

    async def nodes(self) -> tuple[NodeCapacity, ...]:
        answer = await self._get("nodes", "slurm", "nodes")
        return access.hold(_read(lambda a: openapi.nodes(a, self._gres), answer), await self._reservations())

    async def rights(self) -> dict[str, Access]:
        associations = None
        if (await self._chosen()).accounting:
            associations = _read(openapi.associations, await self._get("associations", "slurmdb", "associations"))
        partitions = _read(openapi.partitions, await self._get("partitions", "slurm", "partitions"))
        return access.rights(associations, partitions, await self._reservations())

    async def _reservations(self) -> list[access.Reservation]:
        answer = await self._get("reservations", "slurm", "reservations")
        return _read(lambda a: openapi.reservations(a, time.time()), answer)

    async def estimate(self, job: Submission) -> datetime | None:
        return None

    async def tail(self, path: str, user: str, lines: int) -> str:
        try:
            return await asyncio.to_thread(_tail, path, self._submitter(user), lines)
        except SlurmError:
            return ""

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _submitter(self, user: str) -> str:
        return account(user) if self._run_as == "user" else self._user

    async def _get(self, verb: str, plugin: str, path: str) -> dict[str, Any]:
        """An answer to a question that Slurm has no reason to say no to."""
        try:
            return await self._ask(verb, "GET", plugin, path)
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            raise SlurmUnavailable(str(error)) from None

    async def _chosen(self) -> openapi.Api:
        if self._api is None:
            with counted(self._on_call, "openapi"):
                self._api = _read(openapi.choose, (await self._request("GET", "/openapi/v3", self._user))[1])
        return self._api

    async def _ask(
        self, verb: str, method: str, plugin: str, path: str, user: str = "", body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The answer; SlurmError if the controller said no, SlurmUnavailable if it said nothing that counts."""
        api = await self._chosen()
        with counted(self._on_call, verb):
            status, answer = await self._request(method, f"/{plugin}/{api.version}/{path}", user or self._user, body)
            failures = _read(openapi.errors, answer)
            if failures:
                message = "; ".join(failure.text for failure in failures)[:500]
                clear = status == 400 or all(f.of_slurm for f in failures) or says(message, UNKNOWN_JOB)
                found_none = status == 200 and says(message, _NOTHING_FOUND)
                if not (clear or found_none) or says(message, NO_ANSWER):
                    raise SlurmUnavailable(f"slurmrestd answered {status}: {message}")
                raise SlurmError(message)
            if status != 200:
                self._api = None  # it may be another server by now
                raise SlurmUnavailable(f"slurmrestd answered {status} without a reason")
            return answer

    async def _request(
        self, method: str, path: str, user: str, body: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        token = await self._tokens.get(user)
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(self._timeout))
        headers = {"X-SLURM-USER-NAME": user, "X-SLURM-USER-TOKEN": token}
        try:
            async with self._session.request(method, self._url + path, json=body, headers=headers) as response:
                text = await response.text(errors="replace")
                status = response.status
        except asyncio.TimeoutError:
            raise SlurmUnavailable(f"slurmrestd did not answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise SlurmUnavailable(f"slurmrestd cannot be reached: {error}") from None
        if status in (401, 403):
            self._tokens.drop(user)
            raise SlurmUnavailable(f"slurmrestd does not accept the token of {user} ({status})")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SlurmUnavailable(f"slurmrestd answered {status} with something that is no JSON object")
        return status, answer


def _read(reader: Callable[[Any], T], answer: Any) -> T:
    """What `reader` finds in an answer; an answer that cannot be read tells nothing about any job."""
    try:
        return reader(answer)
    except (openapi.UnreadableAnswer, KeyError, TypeError, AttributeError) as error:
        raise SlurmUnavailable(f"slurmrestd's answer cannot be read: {error}") from None


def _tail(path: str, user: str, lines: int) -> str:
    """The end of a file that belongs to `user`: the hub may see more than that user, and a link may point anywhere."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as log:
            about = os.fstat(log.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_uid != pwd.getpwnam(user).pw_uid:
                return ""
            log.seek(max(0, about.st_size - 200 * lines))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except (OSError, KeyError, ValueError):
        return ""
