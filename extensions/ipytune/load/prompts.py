"""The bodies of the requests, rendered beforehand as far as they are alike: sending one costs next to nothing.

Each prompt begins with a mark of its own (run, step, number of the request): what follows it cannot come from a
server's prefix cache, neither of this run nor of an earlier one with the same seed.
"""

from __future__ import annotations

import json
import random
import secrets
from pathlib import Path
from typing import Any

from ipytune.endpoints.errors import BadRequest
from ipytune.load.plan import Plan

_MOST_PROMPTS = 100_000
_TEXT = """
river stone paper light winter garden engine letter window silver morning question number forest signal copper harbour
music valley bridge thunder candle orange shadow mirror planet market ladder ribbon pepper island meadow cotton hammer
rocket basket violin tunnel feather marble anchor lantern summer kettle saddle pencil blanket glacier
"""
_WORDS = _TEXT.split()


class Bodies:
    """body(index) is the JSON of request `index`.

    mark: names run and step; it goes into every prefix.   Raises BadRequest for a file of prompts that is none.
    """

    def __init__(self, plan: Plan, model: str, mark: str) -> None:
        self._plan = plan
        self._model = model
        self._mark = mark
        # Stands for the prefix while a body is rendered; random, so that nobody's prompt or option holds it.
        self._place = secrets.token_hex(12)
        self._templates: dict[int, tuple[bytes, bytes]] = {}
        self._read = read_prompts(plan.prompts, plan.api) if plan.prompts is not None else ()
        self._rendered = [self._render(prompt, plan.output_tokens) for prompt in self._read]
        self._text, self._ends = _generated(plan.seed, plan.prompt_words)

    def body(self, index: int, words: int | None = None, tokens: int | None = None) -> bytes:
        prefix = f"{self._mark}-{index:06x} ".encode() if self._plan.unique_prefix else b""
        if self._rendered:
            head, tail = self._rendered[index % len(self._rendered)]
            return head + prefix + tail
        head, tail = self._template(tokens if tokens is not None else self._plan.output_tokens)
        return head + prefix + self._words(words if words is not None else self._plan.prompt_words) + tail

    def _words(self, count: int) -> bytes:
        if count > len(self._ends):  # a trace's prompts may be longer than the plan's
            self._text, self._ends = _generated(self._plan.seed, count)
        return self._text[: self._ends[count - 1]]

    def _template(self, tokens: int) -> tuple[bytes, bytes]:
        if tokens not in self._templates:
            self._templates[tokens] = self._render("", tokens)
        return self._templates[tokens]

    def _render(self, prompt: str | list[dict[str, Any]], tokens: int) -> tuple[bytes, bytes]:
        asked: dict[str, Any]
        if self._plan.api == "completions":
            asked = {"prompt": f"{self._place}{prompt}"}
        elif isinstance(prompt, str):
            asked = {"messages": [{"role": "user", "content": f"{self._place}{prompt}"}]}
        else:
            messages = [dict(message) for message in prompt]
            first = next((message for message in messages if message.get("role") == "user"), messages[0])
            first["content"] = f"{self._place}{first['content']}"
            asked = {"messages": messages}
        body = {
            "model": self._model,
            **asked,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._plan.request_fields(tokens),
        }
        head, tail = json.dumps(body).encode().split(self._place.encode())
        return head, tail


def read_prompts(path: Path, api: str = "chat") -> tuple[str | list[dict[str, Any]], ...]:
    """The prompts of a file: JSON lines with `prompt` or `messages`, or else one prompt a line. Raises BadRequest."""
    found: list[str | list[dict[str, Any]]] = []
    try:
        with path.expanduser().open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                found.append(_prompt(line, path, number))
                if len(found) > _MOST_PROMPTS:
                    raise BadRequest(f"{path} is too long.", f"More than {_MOST_PROMPTS} prompts.", "Cut it.")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise BadRequest(f"The prompts in {path} cannot be read.", f"{why}.", "Name a text file.") from None
    if not found:
        raise BadRequest(f"There is no prompt in {path}.", "It holds no line.", "Name a file with a prompt a line.")
    if api == "completions" and not all(isinstance(prompt, str) for prompt in found):
        raise BadRequest(
            f"The prompts in {path} are conversations.",
            "The completions API takes plain text.",
            "Write `prompt` instead of `messages`, or choose api='chat'.",
        )
    return tuple(found)


def _prompt(line: str, path: Path, number: int) -> str | list[dict[str, Any]]:
    if not line.lstrip().startswith("{"):
        return line.strip()
    try:
        row = json.loads(line)
        if isinstance(row.get("prompt"), str):
            return str(row["prompt"])
        messages = row["messages"]
        if messages and all(isinstance(m["role"], str) and isinstance(m["content"], str) for m in messages):
            return [dict(message) for message in messages]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise BadRequest(
        f"Line {number} of {path} holds no prompt.",
        "A line of JSON needs `prompt` (text) or `messages` (a list of role and content).",
        'Write lines like {"prompt": "Summarise …"}.',
    )


def _generated(seed: int, count: int) -> tuple[bytes, list[int]]:
    """`count` words as one text, and where each ends. Plain ASCII, so that JSON needs no escapes."""
    words = random.Random(seed).choices(_WORDS, k=count)
    ends, at = [], -1
    for word in words:
        at += 1 + len(word)
        ends.append(at)
    return " ".join(words).encode(), ends
