"""Ragged chat data and the models it is trained on. Everything is made here, from a seed.

Lengths are log-normal (median 170 tokens, 24 to 768), as in chat data; a third of each conversation is the answer.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

SHORTEST, MEDIAN, LONGEST, SIGMA = 24, 170, 768, 0.8
ANSWERED = 0.35  # of a conversation's words
WORDS = [
    "node",
    "job",
    "time",
    "file",
    "memory",
    "queue",
    "run",
    "model",
    "data",
    "train",
    "token",
    "rate",
    "batch",
    "step",
    "loss",
    "test",
    "user",
    "hour",
    "disk",
    "line",
    "cost",
    "plan",
    "start",
    "stop",
    "open",
    "read",
    "write",
    "send",
    "list",
    "name",
    "path",
    "size",
    "part",
    "case",
    "word",
    "call",
    "page",
    "link",
    "code",
    "form",
    "view",
    "check",
]

QWEN3 = {
    "qwen3-0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "qwen3-1.7b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "qwen3-8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
}
VOCABULARY = 151_936
MODELS = ("smollm2-135m-instruct", *QWEN3)


def write_conversations(path: Path, count: int, seed: int) -> None:
    """Prompt and completion as lists of messages: the form in which every contender learns the completion only."""
    chance = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            words = min(LONGEST, max(SHORTEST, round(math.exp(chance.gauss(math.log(MEDIAN), SIGMA))))) - 16
            answer = max(4, round(words * ANSWERED))
            question = _text(chance, max(4, words - answer))
            row = {
                "prompt": [{"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": _text(chance, answer)}],
            }
            file.write(json.dumps(row) + "\n")


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(words))


def model_directory(name: str, folder: Path) -> str:
    """The bundled model's name as it is; a Qwen3 of the published shape with random weights, saved once in `folder`."""
    if name not in QWEN3:
        from ipytune import models

        return str(models.resolve(name))
    directory = folder / name
    if not (directory / "config.json").is_file():
        import torch
        from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

        from ipytune import models

        shape = QWEN3[name]
        torch.manual_seed(0)
        tokenizer = AutoTokenizer.from_pretrained(models.resolve("smollm2-135m-instruct"))
        config = Qwen3Config(
            **shape,
            num_key_value_heads=8,
            head_dim=128,
            vocab_size=VOCABULARY,
            tie_word_embeddings=name != "qwen3-8b",
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype=torch.bfloat16,
        )
        Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return str(directory)
