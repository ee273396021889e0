"""A tokenizer made here: a token for each byte, few merges, and the control tokens of a template's style."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "templates"
CONTROLS = {  # style -> (start of the text, stop token, others)
    "chatml": (None, "<|im_end|>", ("<|im_start|>",)),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>")),
    "qwen3": (None, "<|im_end|>", ("<|im_start|>",)),
    "gemma": ("<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>")),
    "phi3": ("<s>", "<|endoftext|>", ("<|user|>", "<|assistant|>", "<|end|>")),
    "mistral": ("<s>", "</s>", ("[INST]", "[/INST]")),
}
# Merges that cross what a template writes and what a message holds: two line breaks, a blank and a letter.
MERGES = [("Ċ", "Ċ"), ("Ġ", "w")]


def tokenizer(style: str, template: str | None = None) -> PreTrainedTokenizerFast:
    start, stop, others = CONTROLS[style]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *("".join(merge) for merge in MERGES)]
    backend = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=start, eos_token=stop)
    fast.add_tokens([AddedToken(token, special=True) for token in others], special_tokens=True)
    fast.chat_template = (TEMPLATES / f"{style}.jinja").read_text() if template is None else template
    return fast


def learned_text(fast: PreTrainedTokenizerFast, ids: tuple[int, ...], learned: tuple[bool, ...]) -> list[str]:
    """The text of each run of learned tokens."""
    runs: list[list[int]] = []
    before = False
    for token, is_learned in zip(ids, learned, strict=True):
        if is_learned:
            if not before:
                runs.append([])
            runs[-1].append(token)
        before = is_learned
    return [fast.decode(run, skip_special_tokens=False) for run in runs]
