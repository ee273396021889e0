"""Models small enough for a blink, with tokenizers that GGUF knows, adapters for them, and a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from ipytune.adapter import vocabulary
from ipytune.lora.config import RunConfig
from ipytune.runs.directory import RunDirectory

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "two nodes for three hours",
    "user",
    "assistant",
    "one node, 4 GPUs, for 12 hours please",
    "the sea is wide",
] * 4
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
SPLITS = {"qwen2": vocabulary._QWEN2, "llama-bpe": vocabulary._LLAMA3}


def tokenizer(pre: str = "qwen2") -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre in {"gpt-2", "smollm"})
    first: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if pre == "smollm" else []
    if pre in SPLITS:
        first = [pre_tokenizers.Split(Regex(SPLITS[pre]), "isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*first, last]) if first else last
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = TEMPLATE
    return fast


def save_model(directory: Path, kind: str = "llama", dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """A model directory of the architecture `kind`, with random weights."""
    words = tokenizer("llama-bpe" if kind == "llama" else "qwen2")
    sizes: dict[str, Any] = {**SIZES, "vocab_size": len(words) + 4, "eos_token_id": words.eos_token_id}
    if kind == "qwen3":
        sizes["head_dim"] = 32
    config = AutoConfig.for_model(kind, **{**sizes, **options})
    torch.manual_seed(3)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for name, parameter in model.named_parameters():
        scale = 0.2 if parameter.ndim > 1 else 0.05  # wide enough that logits differ, norms that are not all one
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=scale)
    model.generation_config.eos_token_id = [words.eos_token_id, 0]
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    return directory


def save_adapter(base: Path, directory: Path, **options: Any) -> Path:
    """An adapter of `base` that has learned something: its B and its magnitudes are not what they began as."""
    peft = peft_model(base, **options)
    disturb(peft)
    peft.save_pretrained(str(directory))
    return directory


def peft_model(base: Path, **options: Any) -> PeftModel:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    torch.manual_seed(5)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    peft = get_peft_model(model, LoraConfig(**settings))
    assert isinstance(peft, PeftModel)
    return peft


@torch.no_grad()
def disturb(peft: PeftModel) -> None:
    for name, parameter in peft.named_parameters():
        if "lora_B" in name or "lora_A" in name:
            parameter += 0.05 * torch.randn_like(parameter)
        elif "magnitude" in name:
            parameter *= 1.1


def save_run(directory: Path, base: Path, **options: Any) -> Path:
    """The directory of a run that has completed, without the run."""
    data = directory.parent / f"{directory.name}-data.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"the sea {text}"}]}
        for text in dict.fromkeys(TEXTS)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = RunConfig(model=str(base), train_file=data, **options).pinned()
    run = RunDirectory(directory)
    run.create(config.as_yaml())
    save_adapter(base, run.adapter)
    run.write_report(
        {
            "ended_by": "steps",
            "step": 4,
            "total_steps": 4,
            "tokens": 1234,
            "loss": 0.5,
            "first_loss": 2.25,
            "eval_loss": None,
            "training_seconds": 3.5,
            "tokens_per_second": 352.6,
            "examples": len(rows),
            "hardware": {"device": "cpu", "cpu": "A|B <CPU>"},
            "versions": {"torch": "2.13.0"},
        }
    )
    return directory
