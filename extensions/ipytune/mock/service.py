"""What the connections of one process share: the behaviour, the book, the wheel, the slots.

Decides who is answered, when, and how.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import random
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from ipytune.mock.answering import Answer, Streamed, Whole
from ipytune.mock.behaviour import Behaviour
from ipytune.mock.ledger import Entry, Ledger
from ipytune.mock.reader import Request
from ipytune.mock.request import Refused, Wanted, read_wanted
from ipytune.mock.wheel import Wheel
from ipytune.mock.words import reply_to

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SECRET = frozenset({"authorization", "cookie", "x-api-key", "api-key"})


class Service:
    """number: of this process among those that share the port; it is in the names of requests, which so differ."""

    def __init__(self, behaviour: Behaviour, loop: asyncio.AbstractEventLoop, number: int = 0) -> None:
        self.behaviour = behaviour
        self.loop = loop
        self.ledger = Ledger()
        self.wheel = Wheel(loop)
        self.siblings: tuple[int, ...] = ()  # ports on which each process answers for itself alone, this one included
        self.closing: set[Callable[[], None]] = set()  # of the open connections
        self._number = number
        self._serial = 0
        self._running = 0
        self._waiting: deque[Answer] = deque()
        self._fresh()
        # One override is often sent with every request of a load; it is checked once.
        self._overridden = lru_cache(maxsize=256)(self._override)

    def _fresh(self) -> None:
        self._chance = random.Random(self.behaviour.seed)
        self._refused_first = 0

    @property
    def waiting(self) -> int:
        return sum(not answer.over for answer in self._waiting)

    def behave(self, changes: object) -> None:
        """For the requests that follow. Raises ValueError."""
        self.behaviour = self.behaviour.changed(changes)
        self._overridden.cache_clear()
        self._fresh()
        self._let_in()

    def close(self) -> None:
        for close in list(self.closing):
            close()
        self.wheel.close()

    def allowed(self, request: Request) -> bool:
        if self.behaviour.key is None:
            return True
        expected = f"Bearer {self.behaviour.key}".encode()
        return hmac.compare_digest(request.headers.get("authorization", "").encode("latin-1", "replace"), expected)

    def models(self) -> dict[str, Any]:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "mock"} for name in self.behaviour.models]
        return {"object": "list", "data": listed}

    def control(self, method: str, path: str, body: bytes) -> Any:
        """What GET and POST under /mock/ answer. Raises Refused."""
        if (method, path) == ("GET", "/mock/stats"):
            return asdict(self.ledger.stats(self.waiting))
        if (method, path) == ("GET", "/mock/truth"):
            return {"requests": self.ledger.truth()}
        if (method, path) == ("GET", "/mock/requests"):
            return {"requests": list(self.ledger.asked)}
        if (method, path) == ("GET", "/mock/behaviour"):
            return self.behaviour.as_json()
        if (method, path) == ("POST", "/mock/reset"):
            self.ledger.clear()
            self._fresh()
            return {}
        if (method, path) == ("POST", "/mock/behaviour"):
            try:
                changes = json.loads(body)
            except (ValueError, RecursionError):
                raise Refused(400, "The body is no JSON.") from None
            try:
                self.behave(changes)
            except ValueError as error:
                raise Refused(400, str(error)) from None
            return self.behaviour.as_json()
        there = "GET stats, truth, requests, behaviour; POST behaviour, reset"
        raise Refused(404, f"There is no {method} {path} here. There is: {there}.")

    def accept(
        self,
        request: Request,
        arrival: int,
        transport: asyncio.Transport,
        done: Callable[[], None],
        *,
        chat: bool,
    ) -> Answer:
        """Begin the answer to a completion, or put it into the queue. Raises Refused, which is counted.

        done: called when the answer is over and the connection can take its next request.
        """
        self._serial += 1
        name = request.headers.get("x-request-id", "")
        name = name if _NAME.fullmatch(name) else f"mock-{self._number}-{self._serial}"
        wanted: Wanted | None = None
        try:
            if not self.allowed(request):
                raise self._refusal(401, request, "Incorrect API key provided.", kind="authentication_error")
            wanted = read_wanted(request.body, chat=chat)
            behaviour = self._chosen(wanted)
            self._judge(request, wanted, behaviour)
            reply = reply_to(wanted, behaviour)
        except Refused as refused:
            self._note(request, wanted)
            entry = Entry(name, wanted.model if wanted is not None else "", arrival, 0)
            entry.status = refused.status
            self.ledger.began(entry)
            self.ledger.ended(entry, "refused")
            raise
        self._note(request, wanted)
        entry = Entry(name, wanted.model, arrival, wanted.prompt_tokens)
        self.ledger.began(entry)

        def ended(how: str) -> None:
            self._leave(answer, how)
            done()

        form = Streamed if wanted.stream else Whole
        answer: Answer = form(request, wanted, reply, behaviour, entry, self.ledger, transport, ended)
        self._waiting.append(answer)
        self._let_in(arrival)
        return answer

    def cancel(self, answer: Answer) -> None:
        """The client has left: nothing more is written, and the slot is free."""
        waited = answer in self._waiting
        answer.over = True
        if waited:
            self._waiting.remove(answer)
            self.ledger.ended(answer.entry, "cancelled")
        else:
            self._leave(answer, "cancelled")

    def _leave(self, answer: Answer, how: str) -> None:
        self._running -= 1
        self.ledger.ended(answer.entry, how, answer.reply.ended)
        if self._waiting:
            self._let_in()

    def _let_in(self, turn: int | None = None) -> None:
        """Those who wait, as far as there are slots.   turn: the moment from which their times count; now."""
        slots = self.behaviour.slots
        while self._waiting and (not slots or self._running < slots):
            answer = self._waiting.popleft()
            self._running += 1
            due = answer.begin(turn if turn is not None else time.monotonic_ns())
            if due <= time.monotonic_ns():
                again = answer.fire()
                if again is not None:
                    self.wheel.at(again, answer)
            else:
                self.wheel.at(due, answer)

    def _chosen(self, wanted: Wanted) -> Behaviour:
        """The behaviour for this request: the server's, or with what the request itself changes."""
        if wanted.mock is None:
            return self.behaviour
        try:
            return self._overridden(json.dumps(wanted.mock, sort_keys=True))
        except ValueError as error:
            raise Refused(400, str(error), param="mock") from None

    def _override(self, values: str) -> Behaviour:
        return self.behaviour.changed(json.loads(values), own=True)

    def _judge(self, request: Request, wanted: Wanted, behaviour: Behaviour) -> None:
        """Whether the request is answered at all."""
        if wanted.model not in behaviour.models:
            message = f"The model `{wanted.model}` does not exist."
            raise Refused(404, message, kind="NotFoundError", param="model", code="model_not_found")
        for name in behaviour.refuses:
            if name in wanted.body:
                raise Refused(422, f"Unexpected field: {name}", param=name)
        self._refused_first += 1
        first = self._refused_first <= behaviour.error_first
        if first or (behaviour.error_rate and self._chance.random() < behaviour.error_rate):
            raise self._refusal(behaviour.error_status, request, _message(behaviour), behaviour)
        if behaviour.error_after is not None and not wanted.stream:
            raise Refused(500, "The engine has failed in the middle of an answer.", kind="server_error")

    def _refusal(
        self,
        status: int,
        request: Request,
        message: str,
        behaviour: Behaviour | None = None,
        kind: str = "mock_error",
    ) -> Refused:
        behaviour = behaviour or self.behaviour
        if behaviour.repeat_key:
            message += f" You sent: {request.headers.get('authorization', 'no key')}"
        told = status == behaviour.error_status
        raw = behaviour.error_body if told else None
        headers = _retry_after(behaviour) if told else {}
        return Refused(status, message, kind=kind, code=str(status), raw=raw, headers=headers)

    def _note(self, request: Request, wanted: Wanted | None) -> None:
        headers = {name: "•••" if name in _SECRET else value for name, value in request.headers.items()}
        body = wanted.body if wanted is not None else None
        self.ledger.asked.append({"path": request.path, "headers": headers, "body": body})


def _message(behaviour: Behaviour) -> str:
    if behaviour.error_status == 429:
        return "Rate limit reached. Ask less often."
    try:
        return f"{HTTPStatus(behaviour.error_status).phrase}, as the mock was told."
    except ValueError:
        return "An error, as the mock was told."


def _retry_after(behaviour: Behaviour) -> dict[str, str]:
    if behaviour.retry_after is None:
        return {}
    if behaviour.retry_after_form == "date":
        return {"Retry-After": formatdate(time.time() + behaviour.retry_after, usegmt=True)}
    return {"Retry-After": f"{behaviour.retry_after:g}"}
