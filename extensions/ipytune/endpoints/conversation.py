"""A chat in a terminal: turns read line by line, answers streamed. Knows nothing of options and of typer.

An answer that is cancelled stays in the conversation as far as it came; a turn that fails is taken back, so that it can
be said again. What a model writes cannot steer the terminal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

from ipytune.endpoints import background
from ipytune.endpoints.answer import Answer, Piece
from ipytune.endpoints.client import Message
from ipytune.endpoints.errors import EndpointError
from ipytune.endpoints.format import summary
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.untrusted import visible


class Conversation:
    """Messages so far, and where they are written to: answers to `out`, all else to `aside`."""

    def __init__(
        self, endpoint: Endpoint, options: Mapping[str, Any], out: TextIO, aside: TextIO, system: str | None = None
    ) -> None:
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self._endpoint = endpoint
        self._options = dict(options)
        self._out, self._aside = out, aside
        self._for_eyes = out.isatty()  # into a file or pipe goes what the model wrote, letter for letter

    def say(self, words: str, *, shown: bool = True) -> Answer:
        """One turn. shown: write the answer as it comes. Raises EndpointError, the turn taken back; KeyboardInterrupt,
        with what came kept."""
        came: list[str] = []

        def take(piece: Piece) -> None:
            if piece.kind == "content":
                came.append(piece.text)
                if shown:
                    self._write(piece.text)

        turn = [*self.messages, {"role": "user", "content": words}]
        try:
            answer = background.chat(self._endpoint, turn, on_piece=take, **self._options)
        except KeyboardInterrupt:
            if came:
                self.messages = [*turn, {"role": "assistant", "content": "".join(came)}]
            raise
        self.messages = [*turn, _as_message(answer)]
        return answer

    def _write(self, text: str) -> None:
        self._out.write(visible(text) if self._for_eyes else text)
        self._out.flush()

    def tell(self, answer: Answer, *, logprobs: bool = False) -> None:
        """What stands beside an answer: calls of tools, log-probabilities, how quick it was."""
        self._out.write("\n")
        for call in answer.tool_calls:
            self._write(f"[calls {call.name}({call.arguments})]\n")
        if logprobs:
            for line in logprob_lines(answer):
                self._write(line + "\n")
        self._out.flush()
        self.remark(summary(answer.metrics))

    def remark(self, words: str) -> None:
        self._aside.write(visible(words) + "\n")
        self._aside.flush()


def converse(
    conversation: Conversation, lines: Iterable[str], after: Callable[[Answer], None], *, shown: bool = True
) -> None:
    """Turn by turn until `lines` end. Ctrl-C in an answer cancels that answer; anywhere else it goes to the caller."""
    for line in lines:
        if not line.strip():
            continue
        try:
            answer = conversation.say(line, shown=shown)
        except EndpointError as error:
            conversation.remark(f"\n{error}")
        except KeyboardInterrupt:
            conversation.remark("\nCancelled. Ctrl-C again ends the chat.")
        else:
            after(answer)


def logprob_lines(answer: Answer) -> list[str]:
    """A line a token: the token, its log-probability, and the likeliest tokens in its place."""
    lines = []
    for token in answer.logprobs:
        own = "  –  " if token.logprob is None else f"{token.logprob:7.3f}"
        others = "  ".join(f"{text!r} {number:.2f}" for text, number in token.top if text != token.token)
        lines.append(f"{own}  {token.token!r}" + (f"   instead of {others}" if others else ""))
    return lines


def as_json(answer: Answer) -> dict[str, Any]:
    """An answer for programs; the endpoint as its record, so without a key."""
    return {
        "endpoint": answer.endpoint.model_dump(mode="json"),
        "text": answer.text,
        "reasoning": answer.reasoning,
        "finish_reason": answer.finish_reason,
        "tool_calls": [dataclasses.asdict(call) for call in answer.tool_calls],
        "logprobs": [dataclasses.asdict(token) for token in answer.logprobs],
        "metrics": answer.metrics.as_dict(),
    }


def _as_message(answer: Answer) -> Message:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
    return message
