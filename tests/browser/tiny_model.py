"""A model that is real to every library and trains many steps a second: random weights, a word-level tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

_TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} {{ message['content'] }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
_NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
_WORDS = [*_NUMBERS, "nodes", "hours", "user", "assistant", "system"]


def write_tiny_model(directory: Path) -> Path:
    """A model directory as save_pretrained writes it, loadable offline."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<unk>", "<|im_start|>", "<|im_end|>", "<pad>"]
    vocabulary = {word: index for index, word in enumerate([*special, *_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<|im_start|>",
    )
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def write_tiny_data(file: Path) -> Path:
    """Conversations that such a model can learn: the number comes back."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{a} nodes {b}"},
                {"role": "assistant", "content": f"{b} hours {a}"},
            ]
        }
        for a in _NUMBERS
        for b in _NUMBERS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
