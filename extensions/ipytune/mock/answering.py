"""An answer being written: at each moment that is due, the bytes that are due. No task, no waiting: the wheel calls.

Tokens are due by an absolute schedule, so a late one does not delay those after it. The moment noted for a token is
read just before its bytes go to the kernel: what a client sees can only be later.
"""

from __future__ import annotations

import json
import random
import socket
import struct
from asyncio import Transport
from collections.abc import Callable
from time import monotonic_ns, time

from ipytune.mock import render
from ipytune.mock.behaviour import Behaviour
from ipytune.mock.ledger import Entry, Ledger
from ipytune.mock.reader import Request
from ipytune.mock.request import Wanted
from ipytune.mock.words import Reply

_SPLIT = 1_000_000  # nanoseconds between two halves of a character, so that they are two reads
_BEFORE_CUT = 5_000_000  # what was written before should arrive

Ended = Callable[[str], None]


class Answer:
    """One answer to one request.   ended: called once, with "done" or "cut"; not when the client leaves."""

    def __init__(
        self,
        request: Request,
        wanted: Wanted,
        reply: Reply,
        behaviour: Behaviour,
        entry: Entry,
        ledger: Ledger,
        transport: Transport,
        ended: Ended,
    ) -> None:
        self.wanted = wanted
        self.reply = reply
        self.behaviour = behaviour
        self.entry = entry
        self.over = False
        self._ledger = ledger
        self._transport = transport
        self._ended = ended
        self._chunked = wanted.stream and not request.old
        self._keep = request.keep
        self._created = int(time())
        self._act: Callable[[], int | None] = self._open
        self._due = 0

    def begin(self, turn: int) -> int:
        """turn: when it got its slot, the request's arrival if at once. Returns when `fire` is due."""
        opens = turn + round(self.behaviour.header_delay * 1e9)
        self._base = max(turn + round(self.behaviour.ttft * 1e9), opens)
        self._due = opens
        return opens

    def fire(self) -> int | None:
        if self.over:
            return None
        return self._act()

    def _open(self) -> int | None:
        raise NotImplementedError

    def _head(self, kind: str, length: int | None) -> bytes:
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", f"X-Request-Id: {self.entry.id}"]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        elif self._chunked:
            lines.append("Transfer-Encoding: chunked")
        if not self._keep:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _wrote(self, moment: int, tokens: int, reasoning: bool = False) -> None:
        self.entry.writes.append(moment)
        self.entry.counts.append(tokens)
        self.entry.reasoning += reasoning
        self._ledger.tokens += tokens
        late = moment - self._due
        if late > self._ledger.worst_lateness:
            self._ledger.worst_lateness = late

    def _over(self, how: str) -> None:
        self.over = True
        self._ended(how)

    def _cut(self) -> None:
        self.over = True
        if self.behaviour.cut == "reset":
            # Without lingering, closing sends a reset instead of an orderly end.
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        else:
            self._transport.close()
        self._ended("cut")


class Streamed(Answer):
    """As server-sent events."""

    def begin(self, turn: int) -> int:
        opens = super().begin(turn)
        behaviour = self.behaviour
        self._events = render.events(self.wanted, self.reply, behaviour)
        self._prefix = render.prefix(self.wanted, behaviour, self.entry.id, self._created)
        self._prefix_length = len(self._prefix)
        self._itl = round(behaviour.itl * 1e9)
        self._jitter = round(behaviour.jitter * 1e9)
        self._chance = random.Random(f"{behaviour.seed} {self.entry.id}") if self._jitter else None
        self._split = behaviour.split_utf8
        self._index = 0
        self._stop, self._at_end = self._ending()
        self._rest = b""
        self._every = round(behaviour.comment_every * 1e9)
        if self._every:
            self._comment = render.comment(behaviour)
            self._next_comment = opens + self._every
            self._next_act: int | None = opens
        return opens

    def fire(self) -> int | None:
        if self.over:
            return None
        return self._with_comments() if self._every else self._act()

    def _with_comments(self) -> int | None:
        now = monotonic_ns()
        if self._next_act is not None and now >= self._next_act:
            self._next_act = self._act()
            if self.over:
                return None
        # Not between the halves of an event, and not before the headers.
        if now >= self._next_comment and not self._rest and self._act != self._open:
            self._write(self._comment)
            self._next_comment += self._every
        later = max(self._next_comment, now + 1_000_000)
        return later if self._next_act is None else min(later, self._next_act)

    def _ending(self) -> tuple[int, Callable[[], int | None]]:
        """How many events are written, and what comes then."""
        behaviour = self.behaviour
        for limit, act in (
            (0 if behaviour.hang_before else behaviour.hang_after, self._hang),
            (behaviour.cut_after, self._cut_soon),
            (behaviour.bad_json_after, self._bad_json),
            (behaviour.error_after, self._error),
        ):
            if limit is not None:
                return sum(event.offset + event.tokens <= limit for event in self._events), act
        return len(self._events), self._finish_soon

    def _open(self) -> int | None:
        out = [self._head("text/event-stream; charset=utf-8", None)]
        if self.wanted.chat and self.behaviour.role_only:
            out.append(self._framed(self._prefix + render.role(self.behaviour)))
        self._transport.write(b"".join(out))
        if self._stop == 0:
            self._act = self._at_end
            self._due = self._base
        else:
            self._act = self._token
            self._due = self._due_of(0)
        return self._due

    def _due_of(self, index: int) -> int:
        due = self._base + self._events[index].offset * self._itl
        if self._chance is not None:
            due = max(due + self._chance.randrange(self._jitter + 1), self._due)
        return due

    def _token(self) -> int | None:
        event = self._events[self._index]
        rest = event.rest
        if self._chunked:
            frame = b"%x\r\n%b%b\r\n" % (self._prefix_length + len(rest), self._prefix, rest)
        else:
            frame = self._prefix + rest
        if self._split and event.cut:
            place = len(frame) - len(rest) + event.cut - (2 if self._chunked else 0)
            self._transport.write(frame[:place])
            self._rest = frame[place:]
            self._act = self._second_half
            return monotonic_ns() + _SPLIT
        moment = monotonic_ns()
        self._transport.write(frame)
        if event.tokens:
            self._wrote(moment, event.tokens, event.reasoning)
        return self._after()

    def _second_half(self) -> int | None:
        event = self._events[self._index]
        rest, self._rest = self._rest, b""
        self._act = self._token
        moment = monotonic_ns()
        self._transport.write(rest)
        if event.tokens:
            self._wrote(moment, event.tokens, event.reasoning)
        return self._after()

    def _after(self) -> int | None:
        self._index += 1
        if self._index < self._stop:
            self._due = self._due_of(self._index)
            return self._due
        self._act = self._at_end
        return self._at_end()

    def _finish_soon(self) -> int | None:
        if not self.behaviour.tail:
            return self._finish()
        self._act = self._finish
        return monotonic_ns() + round(self.behaviour.tail * 1e9)

    def _finish(self) -> int | None:
        self._end(render.finish(self.wanted, self.reply, self.behaviour, self.entry.id, self._created))
        return None

    def _hang(self) -> int | None:
        return None

    def _cut_soon(self) -> int | None:
        self._act = self._cut_now
        return monotonic_ns() + _BEFORE_CUT

    def _cut_now(self) -> int | None:
        self._cut()
        return None

    def _bad_json(self) -> int | None:
        half = render.half_an_event(self.wanted, self.behaviour, self.entry.id, self._created)
        self._end([half, *render.finish(self.wanted, self.reply, self.behaviour, self.entry.id, self._created)])
        return None

    def _error(self) -> int | None:
        error = {"message": "The engine has failed in the middle of an answer.", "type": "server_error", "code": 500}
        done = render.finish(self.wanted, self.reply, self.behaviour, self.entry.id, self._created)[-1]
        self._end([render.event({"error": error}, self.behaviour), done])
        return None

    def _end(self, parts: list[bytes]) -> None:
        self._transport.write(b"".join([*map(self._framed, parts), b"0\r\n\r\n" if self._chunked else b""]))
        self._over("done")

    def _write(self, data: bytes) -> None:
        self._transport.write(self._framed(data))

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data


class Whole(Answer):
    """As one JSON, when its last token is due."""

    def _open(self) -> int | None:
        self._act = self._send
        self._due = self._base + max(self.reply.count - 1, 0) * round(self.behaviour.itl * 1e9)
        return self._due

    def _send(self) -> int | None:
        behaviour = self.behaviour
        if behaviour.hang_before or behaviour.hang_after is not None:
            return None
        body = json.dumps(
            render.whole(self.wanted, self.reply, behaviour, self.entry.id, self._created), ensure_ascii=False
        ).encode("utf-8", "replace")
        half = len(body) // 2
        if behaviour.bad_json_after is not None:
            body = body[:half]
        head = self._head("application/json", len(body))
        if behaviour.cut_after is not None:
            self._transport.write(head + body[:half])
            self._act = self._cut_now
            return monotonic_ns() + _BEFORE_CUT
        moment = monotonic_ns()
        self._transport.write(head + body)
        if self.reply.count:
            self._wrote(moment, self.reply.count)
        self._over("done")
        return None

    def _cut_now(self) -> int | None:
        self._cut()
        return None
