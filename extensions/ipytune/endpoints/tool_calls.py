"""Calls of tools, put together from the pieces of a stream. No I/O.

A call comes in deltas that name its place by `index`; its id and name come once, its arguments in pieces. Servers
differ: some leave the index out, some give every call the index 0 (a new id with a new name is a new call then), some
invent another id for every piece (without a name: the same call), some send the arguments as an object.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

_MOST = 10_000  # an index above is a mistake of the server


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants called. `arguments` is JSON as the model wrote it: check it before use."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ToolDelta:
    """What one chunk adds to the call at `index`."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""

    @property
    def text(self) -> str:
        return self.name + self.arguments


def read_tool_deltas(value: Any) -> tuple[ToolDelta, ...]:
    """The deltas in a chunk's `tool_calls`; nothing for anything unknown."""
    if not isinstance(value, list):
        return ()
    return tuple(_delta(at, item) for at, item in enumerate(value) if isinstance(item, dict))


@dataclass
class _Growing:
    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ToolCalls:
    """Collects deltas.

    >>> calls = ToolCalls()
    >>> calls.add(ToolDelta(0, "call_1", "add", '{"a": '))
    >>> calls.add(ToolDelta(0, arguments="1}"))
    >>> calls.whole()
    (ToolCall(id='call_1', name='add', arguments='{"a": 1}'),)
    """

    def __init__(self) -> None:
        self._calls: list[_Growing] = []
        self._open: dict[int, _Growing] = {}

    def add(self, delta: ToolDelta) -> None:
        call = self._open.get(delta.index)
        if call is None or (delta.name and delta.id and call.id and delta.id != call.id):
            call = self._open[delta.index] = _Growing(delta.index)
            self._calls.append(call)
        call.id = call.id or delta.id
        call.name += delta.name
        if delta.arguments:
            call.arguments.append(delta.arguments)

    def whole(self) -> tuple[ToolCall, ...]:
        """The calls so far, in the order of their indexes."""
        ordered = sorted(self._calls, key=lambda call: call.index)
        return tuple(ToolCall(call.id, call.name, "".join(call.arguments)) for call in ordered)


def _delta(at: int, item: dict[str, Any]) -> ToolDelta:
    function = item.get("function")
    function = function if isinstance(function, dict) else {}
    index = item.get("index")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < _MOST:
        index = at
    arguments = function.get("arguments")
    return ToolDelta(
        index=index,
        id=_text(item.get("id")),
        name=_text(function.get("name")),
        arguments=json.dumps(arguments) if isinstance(arguments, dict) else _text(arguments),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
