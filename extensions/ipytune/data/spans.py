"""Where the answers stand in a conversation as the chat template writes it: characters, exactly.

- A template with {% generation %} markers says itself what the model generates.
- Without them, an answer is what the template adds when the conversation, rendered up to the question and ready for
  generation, goes on by that answer. That holds for the whole text only while the template does not rewrite earlier
  messages.
- A template that does (Qwen 3 leaves out earlier reasoning, Mistral moves the system message) shows its last answer
  as at generation, and earlier ones as no model would write them: the last is learned, the others are counted as
  rewritten. When not even the last can be found exactly the template is refused, for a wrong mask fails silently.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from os.path import commonprefix
from typing import Any, Literal, Protocol

from ipytune.data.findings import Unusable

Learn = Literal["completions", "last", "all"]


class ChatTokenizer(Protocol):
    """What is asked of a tokenizer; transformers' fast tokenizers have it."""

    eos_token_id: Any

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...
    def __call__(self, text: Any, **kwargs: Any) -> Any: ...


class TemplateError(Unusable):
    """A chat template from which the answers cannot be found exactly, or that does not end them."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, and the characters [start, end) of it that are learned, in their order."""

    text: str
    spans: tuple[tuple[int, int], ...]
    to_stop: bool
    """Of each span, what follows the stop token belongs to the template and is not learned."""
    rewritten: int = 0
    """Answers that would be learned, did the template not rewrite them once the conversation goes on."""


def rendered(
    tokenizer: ChatTokenizer, messages: Sequence[dict[str, str]], learn: Learn = "completions", given: int = 0
) -> Rendered:
    """The text and what of it is learned; the first `given` messages never are. Raises TemplateError."""
    text = text_of(tokenizer, messages)
    if learn == "all":
        return Rendered(text, ((0, len(text)),), to_stop=False)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    wanted = [i for i in answers if i >= given]
    wanted = wanted[-1:] if learn == "last" else wanted
    if has_markers(tokenizer):
        return Rendered(text, _marked(tokenizer, messages, text, answers, wanted), to_stop=False)
    spans = [_exact(tokenizer, messages, i, text) for i in wanted]
    if not spans or spans[-1] is None:
        raise TemplateError(
            "The chat template renders an answer differently from what follows its generation prompt (it may drop "
            "reasoning, or differently once it goes on), so the answers cannot be found exactly",
            "Use a tokenizer whose template does not rewrite messages, or put {% generation %} markers into it",
        )
    exact = tuple(span for span in spans if span is not None)
    return Rendered(text, exact, to_stop=True, rewritten=len(spans) - len(exact))


def text_of(tokenizer: ChatTokenizer, messages: Sequence[dict[str, str]], add_generation_prompt: bool = False) -> str:
    """The conversation as the template writes it; add_generation_prompt: ready for the model to answer."""
    _template(tokenizer)
    try:
        return str(
            tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt)
        )
    except Exception as error:  # a template is a program: what it raises is its author's choice
        raise TemplateError(
            f"The chat template refuses the conversation ({type(error).__name__}: {error})",
            "Change the conversation to what the model knows (often: no system message), or take another model",
        ) from error


def has_markers(tokenizer: ChatTokenizer) -> bool:
    """Whether the template says itself which text the model generates."""
    return _marks(_template(tokenizer))


@lru_cache(maxsize=8)
def _marks(template: str) -> bool:
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def _template(tokenizer: Any) -> str:
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise TemplateError(
            "The tokenizer has no chat template: it belongs to a base model",
            "Choose the model's instruct version, or set tokenizer.chat_template",
        )
    return template if isinstance(template, str) else str(tokenizer.get_chat_template())


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of the tokens with a role: stop, start, padding, and the added ones that are marked special."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {*getattr(tokenizer, "all_special_ids", ()), *(i for i, token in added.items() if token.special)}


def _exact(tokenizer: ChatTokenizer, messages: Sequence[dict[str, str]], i: int, text: str) -> tuple[int, int] | None:
    """Characters of answer i, to the end of its turn; None when the whole text shows it differently."""
    before = text_of(tokenizer, messages[:i], add_generation_prompt=True)
    through = text if i == len(messages) - 1 else text_of(tokenizer, messages[: i + 1])
    if not (text.startswith(before) and through.startswith(before)):
        return None
    start = len(before)
    if text.startswith(through):
        return (start, len(through)) if len(through) > start else None
    end = _last_stop(tokenizer, commonprefix([text, through]), start)
    return (start, end) if messages[i]["content"].strip() in text[start:end] else None


def _last_stop(tokenizer: Any, text: str, start: int) -> int:
    """Where the last special token after `start` ends. To there an answer is exact, although the template writes
    something else after it when the conversation ends (Phi 3: one more token) than when it goes on."""
    known = getattr(tokenizer, "added_tokens_decoder", {})
    tokens = [known[i].content for i in special_ids(tokenizer) if i in known]
    return max((text.rfind(token, start) + len(token) for token in tokens if token in text[start:]), default=start)


def _marked(
    tokenizer: Any, messages: Sequence[dict[str, str]], text: str, answers: Sequence[int], wanted: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """The spans between markers that belong to the wanted answers."""
    from transformers.utils.chat_template_utils import render_jinja_template

    both: Any = render_jinja_template(  # annotated as a text; it gives texts and, for each, the marked spans
        [list(messages)],
        chat_template=_template(tokenizer),
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    texts, spans = both
    marked = [(start, end) for start, end in spans[0] if end > start]
    if texts[0] != text or (len(marked) != len(answers) and len(wanted) != len(answers)) or not marked:
        raise TemplateError(
            f"The chat template marks {len(marked)} generated spans for {len(answers)} answers, so it is not known "
            f"which is which",
            "Mend its {% generation %} markers, or remove them",
        )
    if len(marked) != len(answers):
        return tuple(marked)
    return tuple(marked[answers.index(i)] for i in wanted)
