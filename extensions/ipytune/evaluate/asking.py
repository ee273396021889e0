"""Asks endpoints for an evaluation: what was answered before is not asked again, and a dead endpoint is let go.

What it promises:
- One question is under way once, also when two rows are the same.
- The first request to an endpoint goes alone until its answer begins: a wrong key costs one refusal, not sixty-four.
- After an error that would meet every row (no such model, refused, no key, no budget; five errors before any answer;
  five times running no connection) nothing more is sent to that endpoint.
- Every answer is in the ledger before it is scored. Errors are recorded too, and asked again by the next run only.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from ipytune.endpoints.client import Answer, Client
from ipytune.endpoints.errors import (
    BudgetExceeded,
    EndpointError,
    KeyMissing,
    ModelNotFound,
    TimedOut,
    Unauthorized,
    Unreachable,
    Untrusted,
)
from ipytune.endpoints.records import Endpoint
from ipytune.evaluate.ledger import Ledger, Problem, Record, content_key

DEFINITIVE = (Unauthorized, KeyMissing, ModelNotFound, BudgetExceeded, Untrusted)
IN_A_ROW = 5  # errors without connection, or before any answer, until an endpoint counts as dead


class EndpointDead(Exception):
    """The endpoint answers no row; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _Way:
    """What is known about one endpoint."""

    def __init__(self, concurrency: int) -> None:
        self.slots = asyncio.Semaphore(concurrency)
        self.first = asyncio.Lock()
        self.proved = False
        self.refused = 0
        self.dead: Problem | None = None


class Asker:
    """For one run, on one event loop.

    clients: take turns.   cache: answers of other runs, or None.   concurrency: requests under way to each endpoint.
    """

    def __init__(self, clients: Sequence[Client], ledger: Ledger, cache: Ledger | None, concurrency: int) -> None:
        self._clients = itertools.cycle(clients)
        self._ledger = ledger
        self._cache = cache
        self._concurrency = concurrency
        self._ways: dict[Endpoint, _Way] = {}
        self._under_way: dict[str, asyncio.Lock] = {}

    async def ask(
        self,
        endpoint: Endpoint,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        *,
        repeat: int = 0,
        purpose: Literal["answer", "judge"] = "answer",
    ) -> tuple[Record, bool]:
        """The answer, or its problem as a record; and whether it was asked now. Raises EndpointDead."""
        key = content_key(endpoint, messages, options, repeat)
        lock = self._under_way.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                known = self._known(key)
                if known is not None:
                    return replace(known, endpoint=endpoint.name), False
                return await self._asked(key, endpoint, messages, options, repeat, purpose), True
        finally:
            if not lock.locked():
                self._under_way.pop(key, None)

    def _known(self, key: str) -> Record | None:
        record = self._ledger.get(key)
        if record is None and self._cache is not None and (record := self._cache.get(key)) is not None:
            self._ledger.append(record)
        return record

    async def _asked(
        self,
        key: str,
        endpoint: Endpoint,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        repeat: int,
        purpose: Literal["answer", "judge"],
    ) -> Record:
        way = self._ways.setdefault(endpoint, _Way(self._concurrency))
        record = Record(
            key=key, purpose=purpose, endpoint=endpoint.name, url=endpoint.api_root, model=endpoint.model, repeat=repeat
        )
        async with way.slots:
            alone = not way.proved
            if alone:
                await way.first.acquire()
            try:
                if way.proved and alone:
                    way.first.release()
                    alone = False
                if way.dead is not None:
                    raise EndpointDead(way.dead)
                try:
                    async with next(self._clients).stream(endpoint, messages, **options) as stream:
                        async for _ in stream:
                            if alone:
                                way.proved, alone = True, False
                                way.first.release()
                    record = _answered(record, stream.answer)
                    way.proved, way.refused = True, 0
                except EndpointError as error:
                    record = replace(record, problem=Problem.of(error), at=_now())
                    self._learn(way, error)
                self._ledger.append(record)
                if record.problem is None and self._cache is not None:
                    self._cache.append(record)
                if way.dead is not None and record.problem is not None:
                    raise EndpointDead(way.dead)
                return record
            finally:
                if alone:
                    way.first.release()

    def _learn(self, way: _Way, error: EndpointError) -> None:
        gone = isinstance(error, Unreachable) or (isinstance(error, TimedOut) and error.clock == "connect")
        # An error may be one row's fault (too long, say), unless no row was ever answered.
        way.refused = way.refused + 1 if gone or not way.proved else 0
        silent = isinstance(error, TimedOut) and not way.proved  # minutes without a token: nobody waits for five
        if isinstance(error, DEFINITIVE) or silent or way.refused >= IN_A_ROW:
            way.dead = way.dead or Problem.of(error)


def _answered(record: Record, answer: Answer) -> Record:
    metrics = answer.metrics
    return replace(
        record,
        text=answer.text,
        reasoning=answer.reasoning,
        finish_reason=answer.finish_reason,
        prompt_tokens=metrics.prompt_tokens,
        output_tokens=metrics.output_tokens,
        tokens_estimated=metrics.estimated,
        seconds=metrics.e2e,
        ttft=metrics.ttft,
        at=_now(),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
