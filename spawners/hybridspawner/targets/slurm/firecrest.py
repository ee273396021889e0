"""Slurm through FirecREST v2 (pyfirecrest), with the credentials of an OIDC client.

FirecREST does what it is asked in the name of its token's owner: with one client's credentials, all jobs belong to that
client's account. It hands on less than Slurm tells: no comment (a job's name is its mark), no GPUs of a node (the site
file says them), no rights, no trial submit. One question for all jobs makes it run squeue and sacct.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Container, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import httpx
from firecrest.FirecrestException import FirecrestException
from firecrest.v2 import AsyncFirecrest

from ...capacity import Access, NodeCapacity
from ...within import within
from . import access, hostlist, openapi
from .answers import ENDED_JOB, NO_ANSWER, UNKNOWN_JOB, says
from .client import (
    ENDED,
    JobReading,
    OnCall,
    SlurmError,
    SlurmUnavailable,
    Submission,
    SubmitRefused,
    counted,
    ignore_call,
)
from .sealed import seal
from .tokens import Fetch, TokenCache

T = TypeVar("T")
_JOB_NAME = re.compile(r"^#SBATCH\s+(--job-name|-J).*$", re.MULTILINE)
_REFUSED = ("sbatch: error", "job submission rejected", "submission failed")


class _Bearer:
    """What pyfirecrest asks for a token in the middle of a request, and must not wait: the one that is kept."""

    token = ""

    def get_access_token(self) -> str:
        return self.token


class Firecrest:
    """`SlurmClient` by FirecREST at `url` for `system`. `gpus` are each node's, by type. Timeout in seconds."""

    submit_patience = 120.0  # its own timeout, and what FirecREST may still do with a request that was given up

    def __init__(
        self,
        url: str,
        system: str,
        fetch: Fetch,
        gpus: Mapping[str, int] | None = None,
        timeout: float = 30,
        on_call: OnCall = ignore_call,
    ) -> None:
        self._url, self._system, self._timeout, self._on_call = url, system, timeout, on_call
        self._gpus = dict(gpus or {})
        self._tokens, self._bearer = TokenCache(fetch, margin=60), _Bearer()
        self._client: AsyncFirecrest | None = None

    async def submit(self, job: Submission) -> str:
        script, variables = seal(named(job.script, job.mark), job.environment)
        try:
            answer = await self._ask(
                "submit", lambda c: c.submit(self._system, job.directory, script_str=script, env_vars=variables)
            )
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            if not says(error, _REFUSED):
                raise SlurmUnavailable(str(error)) from None
            raise SubmitRefused(str(error)) from None
        job_id = answer.get("jobId") if isinstance(answer, dict) else None
        if not job_id or not str(job_id).isdigit():
            raise SlurmUnavailable("FirecREST accepted the job and told no id")
        return str(job_id)

    async def cancel(self, job_id: str, user: str) -> None:
        try:
            await self._ask("cancel", lambda c: c.cancel_job(self._system, job_id))
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            if not says(error, UNKNOWN_JOB + ENDED_JOB):
                raise

    async def queue(self) -> dict[str, JobReading]:
        return {r.job_id: r for _, r in await self._jobs("queue", everybody=True)}

    async def marked(self, prefix: str, besides: Container[str] = ()) -> dict[str, JobReading]:
        jobs = await self._jobs("marked", everybody=False)
        return {name: job for name, job in jobs if name.startswith(prefix) and name not in besides}

    async def _jobs(self, verb: str, everybody: bool) -> list[tuple[str, JobReading]]:
        answer = await self._sure(verb, lambda c: c.job_info(self._system, allusers=everybody))
        return _read(readings, answer)

    async def finished(self, ids: Collection[str]) -> dict[str, JobReading]:
        known: dict[str, JobReading] = {}
        for job_id in ids:
            try:
                answer = await self._ask("finished", lambda c, i=job_id: c.job_info(self._system, i))  # type: ignore[misc]
            except SlurmUnavailable:
                raise
            except SlurmError as error:
                if not says(error, UNKNOWN_JOB):
                    raise SlurmUnavailable(str(error)) from None
                continue
            known |= {r.job_id: r for _, r in _read(readings, answer)}
        return {job_id: known[job_id] for job_id in ids if job_id in known}

    async def nodes(self) -> tuple[NodeCapacity, ...]:
        found = _read(capacities, await self._sure("nodes", lambda c: c.nodes(self._system)))
        held = _read(reservations, await self._sure("reservations", lambda c: c.reservations(self._system)))
        return access.hold(tuple(with_gpus(node, self._gpus) for node in found), held)

    async def rights(self) -> dict[str, Access]:
        return {}

    async def estimate(self, job: Submission) -> datetime | None:
        return None

    async def tail(self, path: str, user: str, lines: int) -> str:
        try:
            answer = await self._ask("tail", lambda c: c.tail(self._system, path, num_lines=lines))
        except SlurmError:
            return ""
        content = answer.get("content") if isinstance(answer, dict) else answer
        return "\n".join(str(content or "").splitlines()[-lines:])

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close_session()
            self._client = None

    async def _sure(self, verb: str, call: Callable[[AsyncFirecrest], Awaitable[Any]]) -> Any:
        """An answer to a question that Slurm has no reason to say no to."""
        try:
            return await self._ask(verb, call)
        except SlurmUnavailable:
            raise
        except SlurmError as error:
            raise SlurmUnavailable(str(error)) from None

    async def _ask(self, verb: str, call: Callable[[AsyncFirecrest], Awaitable[Any]]) -> Any:
        """The answer; SlurmError with the words of an error that FirecREST reports, SlurmUnavailable if it cannot."""
        with counted(self._on_call, verb):
            self._bearer.token = await self._tokens.get()
            try:
                return await within(call(self._connected()), self._timeout)
            except asyncio.TimeoutError:
                raise SlurmUnavailable(f"FirecREST did not answer within {self._timeout:g} s") from None
            except FirecrestException as error:
                raise self._failure(error) from None
            except (httpx.HTTPError, OSError) as error:
                raise SlurmUnavailable(f"FirecREST cannot be reached: {error or type(error).__name__}") from None
            except (ValueError, KeyError, TypeError) as error:
                raise SlurmUnavailable(f"FirecREST's answer cannot be read: {error!r}") from None

    def _failure(self, error: FirecrestException) -> SlurmError:
        response = error.responses[-1] if error.responses else None
        status = response.status_code if response is not None else 0
        try:
            answer = response.json() if response is not None else {}
            words = [answer.get("message") or answer.get("detail") or answer, *(answer.get("causedBy") or ())]
            message = ": ".join(map(str, words))[:500]
        except (ValueError, AttributeError):
            return SlurmUnavailable(f"FirecREST answered {status} with something that is no JSON object")
        if status == 401:
            self._tokens.drop()
        # a quota that is used up comes as 403 too, but in Slurm's words
        silent = status in (0, 401, 403, 408, 424, 429, 502, 503, 504) and not says(message, _REFUSED)
        if silent or says(message, NO_ANSWER):
            return SlurmUnavailable(f"FirecREST answered {status}: {message}")
        return SlurmError(message)

    def _connected(self) -> AsyncFirecrest:
        if self._client is None:
            self._client = AsyncFirecrest(self._url, self._bearer)
            self._client.timeout = self._timeout
            self._client.num_retries_rate_limit = 0  # the watcher backs off by itself
            self._client.disable_client_logging = True
        return self._client


def client_credentials(token_url: str, client_id: str, read_secret: Callable[[], str], timeout: float = 20) -> Fetch:
    """Tokens of an OIDC client for itself (RFC 6749, 4.4). The secret is read anew each time, so it may change."""

    async def fetch(user: str) -> str:
        try:
            secret = await asyncio.to_thread(read_secret)
        except (OSError, KeyError) as error:
            raise SlurmUnavailable(f"the secret of the client {client_id} cannot be read: {error}") from None
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        try:
            async with httpx.AsyncClient(timeout=timeout) as session:
                response = await session.post(token_url, data=form)
            token = response.json().get("access_token") if response.status_code == 200 else None
        except (httpx.HTTPError, OSError, ValueError, AttributeError) as error:
            raise SlurmUnavailable(f"no token from {token_url}: {error or type(error).__name__}") from None
        if not isinstance(token, str) or not token:
            raise SlurmUnavailable(f"no token from {token_url}: it answered {response.status_code}")
        return token

    return fetch


def named(script: str, name: str) -> str:
    """The script with `name` as the name of its job, which is all that FirecREST shows of what we choose."""
    line = f"#SBATCH --job-name={name}"
    if _JOB_NAME.search(script):
        return _JOB_NAME.sub(line, script, count=1)
    first, newline, rest = script.partition("\n")
    return f"{first}{newline}{line}\n{rest}" if first.startswith("#!") else f"#!/bin/bash\n{line}\n{script}"


def readings(answer: Any) -> list[tuple[str, JobReading]]:
    """(name, reading) of each job of GET compute/…/jobs."""
    if not isinstance(answer, list):
        raise ValueError("no list of jobs")
    found = []
    for job in answer:
        status, times = job["status"], job.get("time") or {}
        words = str(status["state"]).split()
        if not words:
            raise ValueError("a job has no state")
        state = words[0]  # accounting writes e.g. "CANCELLED by 1000"
        reason, signal = str(status.get("stateReason") or ""), openapi.number(status.get("interruptSignal"))
        code = 128 + signal if signal else openapi.number(status.get("exitCode"))
        host = "" if state == "PENDING" else hostlist.first(str(job.get("nodes") or ""))
        found.append(
            (
                str(job.get("name") or ""),
                JobReading(
                    str(job["jobId"]),
                    state,
                    host,
                    openapi.time_text(openapi.number(times.get("start"))),
                    "" if reason == "None" else reason,
                    code if state in ENDED else None,
                    str(job.get("partition") or ""),
                    openapi.number(job.get("priority")) or 0,
                    str(job.get("user") or ""),
                ),
            )
        )
    return found


def capacities(answer: Any) -> tuple[NodeCapacity, ...]:
    """Nodes of GET status/…/nodes; without GPUs. Its `allocMemory` is the whole of a node's, in MiB (sinfo's %m)."""
    found = []
    for node in answer:
        cpus, idle = openapi.number(node.get("cpus")) or 0, openapi.number(node.get("idleCpus")) or 0
        memory = (openapi.number(node.get("allocMemory")) or 0) * 1.048576 / 1000
        state = access.node_state(" ".join("reserved" if s == "OFFLINE" else s for s in node["state"]))
        free = memory * idle / cpus if cpus else 0.0  # what is used is not told: as much of it as of the CPUs
        partitions = frozenset(node.get("partitions") or ())
        found.append(NodeCapacity(str(node["name"]), cpus, idle, memory, free, {}, {}, not state, partitions, state))
    return tuple(found)


def with_gpus(node: NodeCapacity, gpus: Mapping[str, int]) -> NodeCapacity:
    """`node` with the GPUs that the site file gives to each; free when nothing runs on it, since nobody tells more."""
    idle = node.cpus_free >= node.cpus
    return replace(node, gpus=dict(gpus), gpus_free={kind: count if idle else 0 for kind, count in gpus.items()})


def reservations(answer: Any) -> list[access.Reservation]:
    """Those that are active, of GET status/…/reservations; for whom they are is not told."""
    return [
        access.Reservation(str(r["name"]), tuple(hostlist.expand(str(r.get("nodeList") or ""))))
        for r in answer
        if str(r.get("state") or "").lower() == "active"
    ]


def _read(reader: Callable[[Any], T], answer: Any) -> T:
    """What `reader` finds in an answer; an answer that cannot be read tells nothing about any job."""
    try:
        return reader(answer)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SlurmUnavailable(f"FirecREST's answer cannot be read: {error!r}") from None
