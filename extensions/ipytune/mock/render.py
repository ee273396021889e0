"""The bytes of an answer: events of a stream, rendered before they are due, and whole answers. Pure.

An event is a prefix, the same for all of one answer (id, model), and the rest, the same for all answers that say the
same: so what is left to do at a token's moment is to put two byte strings together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ipytune.mock.behaviour import Behaviour
from ipytune.mock.request import Wanted
from ipytune.mock.words import Reply, alternatives, logprob, tokens_of

COMMENT = ": keep-alive"
_CACHED = 4096  # tokens; longer answers are rendered anew, for some dozens of them would fill the memory
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_WIDE = re.compile(rb"[\x80-\xff]")


class Event(NamedTuple):
    """rest: what follows the prefix.   offset: tokens before it.   cut: a place inside a character of rest, or 0."""

    rest: bytes
    tokens: int
    offset: int
    reasoning: bool = False
    cut: int = 0


def events(wanted: Wanted, reply: Reply, behaviour: Behaviour) -> tuple[Event, ...]:
    """The events with tokens, and those without that belong before them (an echo, the name of a called tool)."""
    render = _events if reply.count <= _CACHED else _events.__wrapped__
    echo = wanted.prompt if wanted.echo else ""
    field, size, end = behaviour.reasoning_field, behaviour.tokens_per_chunk, _end(behaviour)
    return render(reply, wanted.chat, echo, wanted.logprobs, field, size, end)


def prefix(wanted: Wanted, behaviour: Behaviour, name: str, created: int) -> bytes:
    """What every event of this answer begins with."""
    kind, first = ("chat.completion.chunk", '"delta":') if wanted.chat else ("text_completion", '"text":')
    comment = f"{COMMENT}{_end(behaviour) * 2}" if behaviour.comments else ""
    return _bytes(
        f'{comment}data: {{"id":{_json(name)},"object":"{kind}","created":{created},"model":{_json(wanted.model)},'
        f'"choices":[{{"index":0,{first}'
    )


def role(behaviour: Behaviour) -> bytes:
    """The rest of a first delta that holds no token."""
    return _rest_and_cut('{"role":"assistant","content":""}', _end(behaviour))[0]


def finish(wanted: Wanted, reply: Reply, behaviour: Behaviour, name: str, created: int) -> list[bytes]:
    """The last events, without a prefix: the finish reason, the usage and [DONE]."""
    end = _end(behaviour)
    usage = _usage(wanted, reply)
    last = f',"usage":{_json(usage)}' if behaviour.usage == "last chunk" else ""
    delta = "{}" if wanted.chat else '""'
    closing = f'{delta},"logprobs":null,"finish_reason":"{reply.ended}"}}]{last}}}{end}{end}'
    found = [prefix(wanted, behaviour, name, created) + closing.encode()]
    if behaviour.usage == "own chunk" and wanted.include_usage:
        kind = "chat.completion.chunk" if wanted.chat else "text_completion"
        body = {"id": name, "object": kind, "created": created, "model": wanted.model, "choices": [], "usage": usage}
        found.append(event(body, behaviour))
    found.append(f"data: [DONE]{end}{end}".encode())
    return found


def event(body: Any, behaviour: Behaviour) -> bytes:
    return _bytes(f"data: {_json(body)}{_end(behaviour) * 2}")


def half_an_event(wanted: Wanted, behaviour: Behaviour, name: str, created: int) -> bytes:
    return prefix(wanted, behaviour, name, created) + (_end(behaviour) * 2).encode()


def comment(behaviour: Behaviour) -> bytes:
    return f"{COMMENT}{_end(behaviour) * 2}".encode()


def whole(wanted: Wanted, reply: Reply, behaviour: Behaviour, name: str, created: int) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    answer: dict[str, Any] = {"id": name, "created": created, "model": wanted.model}
    if behaviour.usage != "none":
        answer["usage"] = _usage(wanted, reply)
    choice: dict[str, Any] = {"index": 0, "finish_reason": reply.ended, "logprobs": None}
    if not wanted.chat:
        echoed = tokens_of(wanted.prompt) if wanted.echo else ()
        if wanted.logprobs is not None:
            choice["logprobs"] = _text_logprobs([*echoed, *reply.tokens], wanted.logprobs, 0, first_known=not echoed)
        text = (wanted.prompt if wanted.echo else "") + reply.text
        return {**answer, "object": "text_completion", "choices": [{**choice, "text": text}]}
    message: dict[str, Any] = {"role": "assistant", "content": reply.text if reply.tool is None else None}
    if reply.tool is not None:
        call = {"name": reply.tool, "arguments": reply.text}
        message["tool_calls"] = [{"id": "call_0", "type": "function", "function": call}]
    if reply.reasoning:
        message[behaviour.reasoning_field] = "".join(reply.reasoning)
    if wanted.logprobs is not None and reply.tool is None:
        choice["logprobs"] = _chat_logprobs(reply.tokens, wanted.logprobs)
    return {**answer, "object": "chat.completion", "choices": [{**choice, "message": message}]}


@lru_cache(maxsize=32)
def _events(
    reply: Reply, chat: bool, echo: str, logprobs: int | None, field: str, size: int, end: str
) -> tuple[Event, ...]:
    found: list[Event] = []

    def add(first: str, tokens: int, offset: int, shown: Any = None, reasoning: bool = False) -> None:
        rest, cut = _rest_and_cut(first, end) if shown is None else _rendered(first, shown, end)
        found.append(Event(rest, tokens, offset, reasoning, cut))

    place = len(echo)
    if echo:
        prompt = tokens_of(echo)
        shown = None if logprobs is None else _text_logprobs(prompt, logprobs, 0, first_known=False)
        add(_json(echo), 0, 0, shown)
    for start in range(0, len(reply.reasoning), size):
        part = reply.reasoning[start : start + size]
        add(_json({field: "".join(part)}), len(part), start, reasoning=True)
    thought = len(reply.reasoning)
    if reply.tool is not None:
        call = {"index": 0, "id": "call_0", "type": "function", "function": {"name": reply.tool, "arguments": ""}}
        add(_json({"tool_calls": [call]}), 0, thought)
    for start in range(0, len(reply.tokens), size):
        part = reply.tokens[start : start + size]
        text = "".join(part)
        shown = None
        if reply.tool is not None:
            first = _json({"tool_calls": [{"index": 0, "function": {"arguments": text}}]})
        elif chat:
            first = f'{{"content":{_json(text)}}}'
            shown = None if logprobs is None else _chat_logprobs(part, logprobs)
        else:
            first = _json(text)
            shown = None if logprobs is None else _text_logprobs(part, logprobs, place)
        place += len(text)
        add(first, len(part), thought + start, shown)
    return tuple(found)


@lru_cache(maxsize=4096)
def _rest_and_cut(first: str, end: str) -> tuple[bytes, int]:
    """Words come again and again: a long answer would otherwise take its time from the other streams."""
    return _rendered(first, None, end)


def _rendered(first: str, logprobs: Any, end: str) -> tuple[bytes, int]:
    rest = _bytes(f'{first},"logprobs":{_json(logprobs)},"finish_reason":null}}]}}{end}{end}')
    wide = _WIDE.search(rest)
    return rest, wide.start() + 1 if wide else 0


def _usage(wanted: Wanted, reply: Reply) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": wanted.prompt_tokens,
        "completion_tokens": reply.count,
        "total_tokens": wanted.prompt_tokens + reply.count,
    }
    if reply.reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": len(reply.reasoning)}
    return usage


def _chat_logprobs(tokens: Sequence[str], count: int) -> dict[str, Any]:
    def described(token: str, value: float) -> dict[str, Any]:
        return {"token": token, "logprob": value, "bytes": list(_bytes(token))}

    return {
        "content": [
            {
                **described(token, logprob(token)),
                "top_logprobs": [described(other, value) for other, value in alternatives(token, count)],
            }
            for token in tokens
        ]
    }


def _text_logprobs(tokens: Sequence[str], count: int, place: int, *, first_known: bool = True) -> dict[str, Any]:
    """The first token of an echoed prompt has no probability: nothing stands before it."""
    known = [logprob(token) if first_known or index else None for index, token in enumerate(tokens)]
    places = []
    for token in tokens:
        places.append(place)
        place += len(token)
    return {
        "tokens": list(tokens),
        "token_logprobs": known,
        "top_logprobs": [
            dict(alternatives(token, max(count, 1))) if value is not None else None
            for token, value in zip(tokens, known, strict=True)
        ],
        "text_offset": places,
    }


def _end(behaviour: Behaviour) -> str:
    return "\r\n" if behaviour.crlf else "\n"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # half a surrogate pair, which JSON can hold, has no bytes
