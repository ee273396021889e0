"""Ragged chat data and the models it is trained on. Everything is made here, from a seed.

Lengths are log-normal (median 170 tokens, 24 to 768), as in chat data; a third of each conversation is the answer.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from ipytune.data.pack import batch

SHORTEST, MEDIAN, LONGEST, SIGMA = 24, 170, 768, 0.8
ANSWERED = 0.35  # of a conversation's words
COMMON = """
node job time file memory queue run model data train token rate batch step loss test user hour disk line cost plan
start stop open read write send list name path size part case word call page link code form view check
"""
WORDS = COMMON.split()

QWEN3: dict[str, dict[str, Any]] = {
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


def conversations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(spec["data"]).read_text(encoding="utf-8").splitlines()]


def in_order(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversations as our loop takes them, step after step."""
    rows = conversations(spec)
    steps = (batch(step, len(rows), spec["batch_size"], spec["seed"]) for step in range(spec["steps"]))
    return [rows[i] for indices in steps for i in indices]


def model_directory(name: str, folder: Path) -> str:
    """Where the bundled model is, or a Qwen3 of the published shape with random weights, made once in `folder`.

    In a process of its own: what it needs in memory is then given back before anything is measured."""
    directory = folder / name
    if not (directory / "config.json").is_file():
        command = [sys.executable, "-m", __name__, name, str(directory)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.splitlines()[-1]
    return str(directory)


def _made(name: str, directory: Path) -> str:
    from ipytune import models

    bundled = str(models.resolve("smollm2-135m-instruct"))
    if name not in QWEN3:
        return bundled
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(bundled)
    config = Qwen3Config(
        **QWEN3[name],
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=VOCABULARY,
        tie_word_embeddings=name != "qwen3-8b",
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.bfloat16,
    )
    model: Any = Qwen3ForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


if __name__ == "__main__":
    print(_made(sys.argv[1], Path(sys.argv[2])))
