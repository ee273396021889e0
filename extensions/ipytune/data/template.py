"""A conversation as the tokens the model sees, and which of them it learns.

Learned are the assistant's answers and the stop token after each: without it, the tuned model would not know how to
end. Where the answers stand is found in `spans`; here they become tokens, many conversations at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ipytune.data.spans import ChatTokenizer, Learn, Rendered, TemplateError, rendered, special_ids, text_of

__all__ = ["ChatTokenizer", "TemplateError", "Tokens", "prompt_ids", "render", "special_ids", "tokens_of"]

TOGETHER = 512  # conversations handed to the tokenizer at once: enough for its threads, little memory


@dataclass(frozen=True)
class Tokens:
    """One conversation: token ids, and for each whether it is learned. Both have the same length."""

    ids: tuple[int, ...]
    learned: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.ids)


def render(
    tokenizer: ChatTokenizer, messages: Sequence[dict[str, str]], learn: Learn = "completions", given: int = 0
) -> Tokens:
    """Tokens of a conversation under the tokenizer's chat template; see `spans.rendered`. Raises TemplateError."""
    (tokens,) = tokens_of(tokenizer, [rendered(tokenizer, messages, learn, given)])
    if isinstance(tokens, TemplateError):
        raise tokens
    return tokens


def tokens_of(tokenizer: ChatTokenizer, conversations: Sequence[Rendered]) -> Iterator[Tokens | TemplateError]:
    """The tokens of each conversation, or why there are none: the error is given, not raised, so that others go on."""
    stops = _Stops.of(tokenizer)
    for start in range(0, len(conversations), TOGETHER):
        chunk = conversations[start : start + TOGETHER]
        for conversation, ids, offsets in zip(chunk, *_encoded(tokenizer, [one.text for one in chunk]), strict=True):
            spans = None if offsets is None else _within(offsets, conversation)
            if spans is None:
                ids, spans = _in_pieces(tokenizer, conversation)
            try:
                yield Tokens(tuple(ids), stops.learned(ids, spans, conversation.to_stop))
            except TemplateError as error:
                yield error


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[dict[str, str]]) -> list[int]:
    """Tokens of a question, ending where the model begins to answer."""
    return list(
        tokenizer(text_of(tokenizer, messages, add_generation_prompt=True), add_special_tokens=False)["input_ids"]
    )


@dataclass(frozen=True)
class _Stops:
    """Which tokens end a turn: eos_token where the template uses it, else a special token (Gemma's <end_of_turn>)."""

    eos: int | None
    others: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any) -> _Stops:
        no_ends = {getattr(tokenizer, name, None) for name in ("bos_token_id", "unk_token_id", "pad_token_id")}
        eos = tokenizer.eos_token_id
        return cls(eos, frozenset(special_ids(tokenizer) - no_ends - {eos}))

    def learned(self, ids: Sequence[int], spans: Sequence[tuple[int, int]], to_stop: bool) -> tuple[bool, ...]:
        """For each token whether it is learned; spans are of tokens. Raises TemplateError where nothing ends one."""
        learned = [False] * len(ids)
        for start, end in spans:
            stop = self._last(ids, start, end)
            if stop is None:
                raise TemplateError(
                    f"The chat template does not end an answer with the stop token (id {self.eos}) or another special "
                    f"token, so the tuned model would not know how to end",
                    "Set tokenizer.eos_token to the token that ends a turn, and save the tokenizer",
                )
            last = stop + 1 if to_stop else end
            learned[start:last] = [True] * (last - start)
        learned[:1] = [False]  # from nothing, nothing is predicted
        return tuple(learned)

    def _last(self, ids: Sequence[int], start: int, end: int) -> int | None:
        for stops in ({self.eos}, self.others):
            for i in range(end - 1, start - 1, -1):
                if ids[i] in stops:
                    return i
        return None


Offsets = list[tuple[int, int]]


def _encoded(tokenizer: Any, texts: list[str]) -> tuple[list[list[int]], Sequence[Offsets | None]]:
    """Token ids of each text, and the characters [start, end) of each token; None from tokenizers written in Python."""
    fast = getattr(tokenizer, "is_fast", True)
    encoded = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=fast, verbose=False
    )
    return encoded["input_ids"], encoded["offset_mapping"] if fast else [None] * len(texts)


def _within(offsets: Offsets, conversation: Rendered) -> list[tuple[int, int]] | None:
    """The tokens [first, last) of each span of characters; None when a token crosses the edge of one, or may.

    Byte-level tokenizers can leave a token's blanks out of its offsets: a gap at an edge may hide such a token.
    """
    starts = [start for start, _ in offsets]
    if starts != sorted(starts):
        return None
    found: list[tuple[int, int]] = []
    for start, end in conversation.spans:
        first = bisect_left(starts, start)
        last = bisect_left(starts, end, first)
        if first == last or (offsets[first - 1][1] if first else 0) != start:
            return None
        ended = offsets[last - 1][1]
        if ended > end or (ended < end and last < len(offsets) and starts[last] > end):
            return None
        found.append((first, last))
    return found


def _in_pieces(tokenizer: Any, conversation: Rendered) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids with each learned span encoded by itself, as at generation, where the prompt stands alone."""
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    position = 0

    def add(piece: str) -> None:
        if piece:
            ids.extend(tokenizer(piece, add_special_tokens=False)["input_ids"])

    for start, end in conversation.spans:
        add(conversation.text[position:start])
        first = len(ids)
        add(conversation.text[start:end])
        spans.append((first, len(ids)))
        position = end
    add(conversation.text[position:])
    return ids, spans
