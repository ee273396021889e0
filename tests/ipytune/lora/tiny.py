"""A model that trains in a blink, made here: two layers of Llama with random weights, a tokenizer of words."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ipytune.lora.config import LoraSettings, RunConfig

TEMPLATE = (
    "{% for message in messages %}<start> {{ message['role'] }} {{ message['content'] }} <end> "
    "{% endfor %}{% if add_generation_prompt %}<start> assistant {% endif %}"
)
WORDS = ["<unk>", "<start>", "<end>", "system", "user", "assistant", *(f"w{i}" for i in range(50))]


def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<end>", pad_token="<end>")
    fast.chat_template = TEMPLATE
    return fast


def model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config)


def save(directory: Path) -> Path:
    model().save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory


def write_conversations(path: Path, count: int, first: int = 0) -> Path:
    """Questions that differ, and answers that repeat them: something that can be learned."""
    lines = []
    for i in range(first, first + count):
        said = " ".join(f"w{(i * k + k) % 50}" for k in range(1, 3 + i % 4))
        messages = [{"role": "user", "content": f"w{i % 50} w{i // 50} {said}"}, {"role": "assistant", "content": said}]
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines) + "\n")
    return path


def task(folder: Path, base: Path, max_steps: int, checkpoint_every: int) -> RunConfig:
    """A run on conversations written to the folder, in which the random numbers matter, for dropout."""
    return RunConfig(
        model=str(base),
        train_file=write_conversations(folder / "train.jsonl", 10),
        eval_file=write_conversations(folder / "eval.jsonl", 4, first=100),
        lora=LoraSettings(rank=4, dropout=0.2),
        learning_rate=1e-2,
        batch_size=3,
        max_steps=max_steps,
        checkpoint_every=checkpoint_every,
        threads=1,
        dtype="float32",
    )
