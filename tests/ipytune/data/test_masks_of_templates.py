"""Masks under five styles of chat template, written down by hand; and equal to TRL's where TRL is installed."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest

from ipytune.data.spans import rendered
from ipytune.data.template import TemplateError, Tokens, prompt_ids, render
from tests.ipytune.data.bytes_tokenizer import learned_text, tokenizer

SYSTEM = {"role": "system", "content": "be short"}
ONE = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "this"}]
TWO = [*ONE, {"role": "user", "content": "why? this"}, {"role": "assistant", "content": "that's why…"}]
THOUGHT = [*ONE[:1], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nthis"}]


def learned(style: str, messages: list[dict[str, str]], **settings: Any) -> list[str]:
    fast = tokenizer(style)
    tokens = render(fast, messages, **settings)
    return learned_text(fast, tokens.ids, tokens.learned)


@pytest.mark.parametrize(
    ("style", "messages", "text", "spans"),
    [
        (
            "chatml",
            [SYSTEM, *TWO],
            "<|im_start|>system\nbe short<|im_end|>\n<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\nthis"
            "<|im_end|>\n<|im_start|>user\nwhy? this<|im_end|>\n<|im_start|>assistant\nthat's why…<|im_end|>\n",
            ["this<|im_end|>", "that's why…<|im_end|>"],
        ),
        (
            "llama3",
            TWO,
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nwhat?<|eot_id|><|start_header_id|>assistant"
            "<|end_header_id|>\n\nthis<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nwhy? this<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nthat's why…<|eot_id|>",
            ["this<|eot_id|>", "that's why…<|eot_id|>"],
        ),
        (
            "qwen3",
            THOUGHT,
            "<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\n<think>\nhm\n</think>\n\nthis<|im_end|>\n",
            ["<think>\nhm\n</think>\n\nthis<|im_end|>"],
        ),
        (
            "gemma",
            TWO,
            "<bos><start_of_turn>user\nwhat?<end_of_turn>\n<start_of_turn>model\nthis<end_of_turn>\n"
            "<start_of_turn>user\nwhy? this<end_of_turn>\n<start_of_turn>model\nthat's why…<end_of_turn>\n",
            ["this<end_of_turn>", "that's why…<end_of_turn>"],
        ),
        (
            "mistral",
            TWO,
            "<s>[INST] what?[/INST] this</s>[INST] why? this[/INST] that's why…</s>",
            [" this</s>", " that's why…</s>"],
        ),
    ],
)
def test_answers_and_their_stop_tokens_are_learned(
    style: str, messages: list[dict[str, str]], text: str, spans: list[str]
) -> None:
    fast = tokenizer(style)
    tokens = render(fast, messages)
    assert fast.decode(tokens.ids, skip_special_tokens=False) == text
    assert learned_text(fast, tokens.ids, tokens.learned) == spans


def test_only_the_last_answer_is_learned_when_asked() -> None:
    assert learned("chatml", TWO, learn="last") == ["that's why…<|im_end|>"]


def test_all_but_the_first_token_is_learned_when_asked() -> None:
    tokens = render(tokenizer("llama3"), TWO, learn="all")
    assert tokens.learned == (False, *[True] * (len(tokens) - 1))


def test_answers_that_were_given_are_not_learned() -> None:
    assert learned("chatml", TWO, given=3) == ["that's why…<|im_end|>"]


@pytest.mark.parametrize(
    ("style", "messages", "span"),
    [
        ("qwen3", TWO, "<think>\n\n</think>\n\nthat's why…<|im_end|>"),
        ("mistral", [SYSTEM, *TWO], " that's why…</s>"),
    ],
)
def test_of_answers_that_the_template_rewrites_the_last_is_learned_as_at_generation(
    style: str, messages: list[dict[str, str]], span: str
) -> None:
    fast = tokenizer(style)
    assert rendered(fast, messages).rewritten == 1
    tokens = render(fast, messages)
    assert learned_text(fast, tokens.ids, tokens.learned) == [span]
    prompt = prompt_ids(fast, messages[:-1])
    assert list(tokens.ids[: len(prompt)]) == prompt


def test_what_a_template_adds_at_the_very_end_costs_no_earlier_answer() -> None:
    """Phi 3 ends a conversation, not a turn, with one more token."""
    template = tokenizer("chatml").chat_template + "{%- if not add_generation_prompt -%}<|im_start|>{%- endif -%}"
    fast = tokenizer("chatml", template)
    tokens = render(fast, TWO)
    assert learned_text(fast, tokens.ids, tokens.learned) == ["this<|im_end|>", "that's why…<|im_end|>"]
    assert rendered(fast, TWO).rewritten == 0


def test_an_answer_that_the_generation_prompt_does_not_lead_to_is_refused() -> None:
    template = tokenizer("chatml").chat_template.replace("'<|im_start|>assistant\\n' -", "'<|im_start|>bot\\n' -")
    with pytest.raises(TemplateError, match="cannot be found exactly"):
        render(tokenizer("chatml", template), ONE)


def test_a_token_never_joins_prompt_and_answer() -> None:
    """The prompt ends with a line break, the answer begins with one, and the tokenizer would merge the two."""
    messages = [*ONE[:1], {"role": "assistant", "content": "\nthis"}]
    fast = tokenizer("chatml")
    tokens = render(fast, messages)
    assert learned_text(fast, tokens.ids, tokens.learned) == ["\nthis<|im_end|>"]
    prompt = prompt_ids(fast, messages[:1])
    assert list(tokens.ids[: len(prompt)]) == prompt


def test_a_template_that_refuses_the_conversation_is_quoted() -> None:
    with pytest.raises(TemplateError, match="no system message here"):
        render(tokenizer("gemma"), [SYSTEM, *ONE])


MARKED = (
    "{%- for message in messages -%}{%- if message.role == 'assistant' -%}{{- '<|im_start|>assistant\n' -}}"
    "{%- generation -%}{{- message.content ~ '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}{%- else -%}"
    "{{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


@pytest.mark.parametrize("settings", [{}, {"learn": "last"}, {"given": 2}])
def test_markers_and_the_search_find_the_same(settings: dict[str, Any]) -> None:
    marked, searched = tokenizer("chatml", MARKED), tokenizer("chatml")
    assert render(marked, [SYSTEM, *TWO], **settings) == render(searched, [SYSTEM, *TWO], **settings)


def test_markers_decide_what_is_learned() -> None:
    template = MARKED.replace(
        "<|im_end|>' -}}{%- endgeneration -%}{{- '\n", "<|im_end|>\n' -}}{%- endgeneration -%}{{- '"
    )
    fast = tokenizer("chatml", template)
    tokens = render(fast, TWO)
    assert learned_text(fast, tokens.ids, tokens.learned) == ["this<|im_end|>\n", "that's why…<|im_end|>\n"]


def test_markers_without_the_stop_token_are_refused() -> None:
    template = MARKED.replace(
        " ~ '<|im_end|>' -}}{%- endgeneration -%}", " -}}{%- endgeneration -%}{{- '<|im_end|>' -}}"
    )
    with pytest.raises(TemplateError, match="would not know how to end"):
        render(tokenizer("chatml", template), ONE)


# --- TRL's own templates, where TRL is installed

# style -> (the original template's file, the training template's file) in trl/chat_templates
TRL_TEMPLATES = {
    "chatml": ("qwen2_5", "qwen2_5_training"),
    "llama3": ("llama3", "llama3_training"),
    "qwen3": ("qwen3", "qwen3_training"),
    "gemma": ("gemma", "gemma_training"),
    "phi3": ("phi3", "phi3_training"),
}


def trl_template(name: str) -> str:
    pytest.importorskip("trl")
    return (resources.files("trl") / "chat_templates" / f"{name}.jinja").read_text()


def trl_tokens(fast: Any, messages: list[dict[str, str]]) -> Tokens:
    """What SFTTrainer with assistant_only_loss asks transformers for."""
    out = fast.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    return Tokens(tuple(out["input_ids"]), (False, *map(bool, out["assistant_masks"][1:])))


@pytest.mark.parametrize("style", TRL_TEMPLATES)
@pytest.mark.parametrize("messages", [ONE, TWO, THOUGHT])
def test_under_trl_s_training_templates_masks_are_trl_s(style: str, messages: list[dict[str, str]]) -> None:
    fast = tokenizer(style, trl_template(TRL_TEMPLATES[style][1]))
    assert render(fast, messages) == trl_tokens(fast, messages)


@pytest.mark.parametrize("style", TRL_TEMPLATES)
@pytest.mark.parametrize("messages", [ONE, TWO, THOUGHT])
def test_under_the_original_templates_masks_are_trl_s_but_for_what_is_not_generated(
    style: str, messages: list[dict[str, str]]
) -> None:
    """TRL also learns the line break that follows a stop token, and the one that Qwen's prompt ends with. A model
    generates neither: it has stopped, and the prompt is given."""
    ours = tokenizer(style, trl_template(TRL_TEMPLATES[style][0]))
    theirs = tokenizer(style, trl_template(TRL_TEMPLATES[style][1]))
    tokens, expected = render(ours, messages), trl_tokens(theirs, messages)
    if style == "qwen3" and messages is TWO:  # TRL shows reasoning in every answer, which no prompt does
        assert learned_text(ours, tokens.ids, tokens.learned) == ["<think>\n\n</think>\n\nthat's why…<|im_end|>"]
        return
    assert tokens.ids == expected.ids
    differing = [i for i, (a, b) in enumerate(zip(tokens.learned, expected.learned, strict=True)) if a != b]
    assert all(expected.learned[i] for i in differing)
    runs = learned_text(theirs, expected.ids, expected.learned)
    assert learned_text(ours, tokens.ids, tokens.learned) == [run.removesuffix("\n").removeprefix("\n") for run in runs]
