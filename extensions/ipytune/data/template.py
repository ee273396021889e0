"""A conversation as the tokens the model sees, and which of them it learns.

Learned are the assistant's answers and the stop token after each: without it, the tuned model would not know how to
end. The spans are found from the chat template itself, by rendering the conversation up to each answer; a template with
which that cannot be done exactly is refused, for a wrong mask fails silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class ChatTokenizer(Protocol):
    """What is asked of a tokenizer; transformers' fast tokenizers have it."""

    eos_token_id: Any

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...
    def __call__(self, text: Any, **kwargs: Any) -> Any: ...


class TemplateError(ValueError):
    """A chat template from which the answers cannot be found exactly, or that does not end them."""


@dataclass(frozen=True)
class Tokens:
    """One conversation: token ids, and for each whether it is learned. Both have the same length."""

    ids: tuple[int, ...]
    learned: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.ids)


def render(tokenizer: ChatTokenizer, messages: Sequence[dict[str, str]]) -> Tokens:
    """Tokens of a conversation under the tokenizer's chat template; raises TemplateError."""
    text, spans = answer_spans(tokenizer, messages)
    if (joint := _together(tokenizer, text, spans)) is None:
        joint = _in_pieces(tokenizer, text, spans)
    ids, answer_of = joint
    learned = [False] * len(ids)
    for answer in range(len(spans)):
        within = [i for i, owner in enumerate(answer_of) if owner == answer]
        stop = max((i for i in within if ids[i] == tokenizer.eos_token_id), default=None)
        if stop is None:
            raise TemplateError(
                f"The chat template does not end an answer with the stop token (id {tokenizer.eos_token_id}), so the "
                f"tuned model would not know how to end. Set tokenizer.eos_token to the token that ends a turn."
            )
        for i in within:
            learned[i] = i <= stop  # what follows the stop token belongs to the template
    return Tokens(tuple(ids), tuple(learned))


def answer_spans(tokenizer: ChatTokenizer, messages: Sequence[dict[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    """The rendered conversation, and for each answer the characters [start, end) from its first to the turn's end."""
    text = _text(tokenizer, messages)
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _text(tokenizer, messages[:i], add_generation_prompt=True)
        through = _text(tokenizer, messages[: i + 1])
        if not (text.startswith(through) and through.startswith(before) and len(through) > len(before)):
            raise TemplateError(
                "The chat template renders a conversation differently once it goes on (it may drop reasoning or move "
                "the system message), so the answers cannot be found exactly. Use conversations with one answer, or a "
                "tokenizer whose template does not rewrite earlier messages."
            )
        spans.append((len(before), len(through)))
    return text, spans


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[dict[str, str]]) -> list[int]:
    """Tokens of a question, ending where the model begins to answer."""
    return list(
        tokenizer(_text(tokenizer, messages, add_generation_prompt=True), add_special_tokens=False)["input_ids"]
    )


def _text(tokenizer: ChatTokenizer, messages: Sequence[dict[str, str]], add_generation_prompt: bool = False) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise TemplateError(
            "The tokenizer has no chat template: it belongs to a base model. Choose the model's instruct version, or "
            "set tokenizer.chat_template."
        )
    return str(
        tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt)
    )


def _together(
    tokenizer: ChatTokenizer, text: str, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int | None]] | None:
    """Token ids of the whole text, and for each token the answer it lies in; None when one crosses an answer's edge."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    owners: list[int | None] = []
    answer = 0
    for start, end in encoded["offset_mapping"]:
        while answer < len(spans) and start >= spans[answer][1]:
            answer += 1
        if answer == len(spans) or end <= spans[answer][0]:
            owners.append(None)
        elif start >= spans[answer][0] and end <= spans[answer][1]:
            owners.append(answer)
        else:
            return None
    return list(encoded["input_ids"]), owners


def _in_pieces(
    tokenizer: ChatTokenizer, text: str, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int | None]]:
    """The same, each question and answer encoded by itself: as at generation, where the prompt stands alone."""
    ids: list[int] = []
    owners: list[int | None] = []
    position = 0
    pieces: list[tuple[str, int | None]] = []
    for answer, (start, end) in enumerate(spans):
        pieces += [(text[position:start], None), (text[start:end], answer)]
        position = end
    for piece, owner in [*pieces, (text[position:], None)]:
        encoded = tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []
        ids += encoded
        owners += [owner] * len(encoded)
    return ids, owners
