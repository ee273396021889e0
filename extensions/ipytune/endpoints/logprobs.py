"""Log-probabilities of tokens, read out of both forms in which servers send them.

Chat: {"content": [{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}]}.
Completions: {"tokens": [], "token_logprobs": [], "top_logprobs": [{token: logprob}]}, one entry a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TokenLogprob:
    """One token: its text, its natural logarithm of probability, and the likeliest tokens there, best first.

    logprob is None where the server has none: the first token of a prompt that is echoed.
    """

    token: str
    logprob: float | None
    top: tuple[tuple[str, float], ...] = ()


def read_logprobs(value: Any) -> tuple[TokenLogprob, ...]:
    """What a choice's `logprobs` holds; nothing for anything unknown."""
    if not isinstance(value, dict):
        return ()
    if isinstance(value.get("content"), list):
        return tuple(_of_chat(item) for item in value["content"] if isinstance(item, dict))
    if isinstance(value.get("tokens"), list):
        return _of_completion(value)
    return ()


def _of_chat(item: dict[str, Any]) -> TokenLogprob:
    top = item.get("top_logprobs")
    pairs = [(other.get("token"), other.get("logprob")) for other in _list(top) if isinstance(other, dict)]
    return TokenLogprob(_text(item.get("token")), _number(item.get("logprob")), _best_first(pairs))


def _of_completion(value: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    numbers, tops = _list(value.get("token_logprobs")), _list(value.get("top_logprobs"))
    return tuple(
        TokenLogprob(
            _text(token),
            _number(numbers[at]) if at < len(numbers) else None,
            _best_first(list(tops[at].items()) if at < len(tops) and isinstance(tops[at], dict) else []),
        )
        for at, token in enumerate(value["tokens"])
    )


def _best_first(pairs: list[tuple[Any, Any]]) -> tuple[tuple[str, float], ...]:
    numbered = [(token, _number(value)) for token, value in pairs if isinstance(token, str)]
    known = [(token, number) for token, number in numbered if number is not None]
    return tuple(sorted(known, key=lambda pair: -pair[1]))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    # NaN, the one number unequal to itself, would make every order and mean of them meaningless
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return float(value)
    return None
