"""What is said: the text of an answer, cut into tokens. Pure: the same request gets the same answer.

A token is a word with the white space before it, so joined tokens are the text again. A model would count otherwise;
what matters is that the count, the text and the usage agree.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from typing import Any

from ipytune.mock.behaviour import Behaviour
from ipytune.mock.request import Wanted
from ipytune.mock.schema import instance

_TOKEN = re.compile(r"\s*\S+|\s+$")
# Some with characters of several bytes: a client must cope with them everywhere.
_PHRASE = "the lake lies still below the Säntis while a boat crosses from Zürich to Rapperswil → and the snow ❄ stays"


@dataclass(frozen=True)
class Reply:
    """tokens: of the text, or of the arguments when a tool is called.   ended: the finish reason."""

    tokens: tuple[str, ...]
    reasoning: tuple[str, ...] = ()
    tool: str | None = None
    ended: str = "stop"

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def count(self) -> int:
        return len(self.reasoning) + len(self.tokens)


def tokens_of(text: str) -> tuple[str, ...]:
    """
    >>> tokens_of("two  nodes, please\\n")
    ('two', '  nodes,', ' please', '\\n')
    """
    return tuple(_TOKEN.findall(text))


def reply_to(wanted: Wanted, behaviour: Behaviour) -> Reply:
    """The answer to a request, as long as it may be."""
    reasoning = _phrase(behaviour.reasoning_tokens) if wanted.chat else ()
    tool = _called_tool(wanted, behaviour)
    if tool is not None:
        name, schema = tool
        arguments = tokens_of(json.dumps(instance(schema), ensure_ascii=False))
        return _limited(Reply(arguments, reasoning, name, "tool_calls"), wanted)
    if wanted.schema is not None:
        return _limited(Reply(tokens_of(json.dumps(instance(wanted.schema), ensure_ascii=False)), reasoning), wanted)
    text = _text(wanted, behaviour)
    tokens = _phrase(behaviour.tokens) if text is None else tokens_of(_before(text, wanted.stop))
    if text is None and wanted.stop:
        tokens = tokens_of(_before("".join(tokens), wanted.stop))
    if wanted.ignore_eos or len(reasoning) + len(tokens) < wanted.min_tokens:
        least = wanted.max_tokens if wanted.ignore_eos else wanted.min_tokens
        if least is not None:
            tokens = _repeated(tokens, max(least - len(reasoning), 0))
    return _limited(Reply(tokens, reasoning), wanted)


def logprob(token: str, rank: int = 0) -> float:
    """Made up, but always the same for the same token: the chosen one below 0, each alternative below that."""
    return -(zlib.crc32(token.encode("utf-8", "replace")) % 1000) / 1000 - 1e-3 - rank


def alternatives(token: str, count: int) -> list[tuple[str, float]]:
    """The token itself first, then made-up others, each less likely."""
    return [(token if rank == 0 else f"{token}~{rank}", logprob(token, rank)) for rank in range(count)]


def _text(wanted: Wanted, behaviour: Behaviour) -> str | None:
    """What the behaviour says word for word; None where only a length is known."""
    known = behaviour.answers.get(wanted.prompt) if behaviour.answers is not None else None
    if isinstance(known, Mapping):
        known = known.get(wanted.model)
    if known is not None:
        return known
    if callable(behaviour.text):
        return str(behaviour.text(wanted.body))
    if behaviour.text is not None:
        return behaviour.text
    return wanted.prompt if behaviour.echo else None


def _called_tool(wanted: Wanted, behaviour: Behaviour) -> tuple[str, dict[str, Any]] | None:
    """Name and schema of the tool that the answer calls."""
    if not wanted.tools or not behaviour.tools or wanted.tool_choice == "none" or wanted.after_tool:
        return None
    chosen = wanted.tool_choice if wanted.tool_choice in wanted.tools else next(iter(wanted.tools))
    return chosen, wanted.tools[chosen]


def _before(text: str, stops: Sequence[str]) -> str:
    ends = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(ends)] if ends else text


def _limited(reply: Reply, wanted: Wanted) -> Reply:
    if wanted.max_tokens is None or reply.count <= wanted.max_tokens:
        # Told to go on past its end, it ended because of the limit.
        ended = "length" if wanted.ignore_eos and reply.count == wanted.max_tokens else reply.ended
        return Reply(reply.tokens, reply.reasoning, reply.tool, ended)
    reasoning = reply.reasoning[: wanted.max_tokens]
    return Reply(reply.tokens[: wanted.max_tokens - len(reasoning)], reasoning, reply.tool, "length")


def _repeated(tokens: tuple[str, ...], count: int) -> tuple[str, ...]:
    if len(tokens) >= count:
        return tokens
    if not tokens:
        return _phrase(count)
    spaced = tuple(token if token[:1].isspace() else f" {token}" for token in tokens)
    return (*tokens, *islice(cycle(spaced), count - len(tokens)))


@lru_cache(maxsize=64)
def _phrase(count: int) -> tuple[str, ...]:
    return _repeated(tokens_of(_PHRASE)[:count], count) if count else ()
