"""The tokenizer of a model, loaded alone, and whether it fits the model; no weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipytune.data.findings import Finding
from ipytune.data.template import ChatTokenizer


def load_tokenizer(source: Path | str) -> ChatTokenizer:
    """The tokenizer of `models.resolve(...)`; raises OSError when there is none."""
    from transformers import AutoTokenizer

    tokenizer: ChatTokenizer = AutoTokenizer.from_pretrained(source)
    return tokenizer


def vocabulary_size(source: Path | str) -> int | None:
    """How many token ids the model has embeddings for, from its config.json; None where that does not say."""
    from transformers import AutoConfig

    size = getattr(AutoConfig.from_pretrained(source).get_text_config(), "vocab_size", None)
    return size if isinstance(size, int) else None


def mismatches(tokenizer: Any, vocab_size: int | None, model: str) -> list[Finding]:
    """What keeps a tokenizer from being used for a model; vocab_size None skips what needs it."""
    file = Path(model)
    findings: list[Finding] = []
    if not getattr(tokenizer, "chat_template", None):
        remedy = "Choose the model's instruct version, or set tokenizer.chat_template and save the tokenizer"
        return [Finding(file, 0, "the tokenizer has no chat template: it belongs to a base model", remedy)]
    if tokenizer.eos_token_id is None:
        remedy = "Set tokenizer.eos_token to the token that ends a turn, and save the tokenizer"
        findings.append(Finding(file, 0, "the tokenizer has no stop token (eos_token)", remedy))
    if vocab_size is None:
        return findings
    remedy = "Use the tokenizer that came with the model, or enlarge the model's embeddings to fit it"
    named = {name: getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos")}
    beyond = [f"{name}_token (id {i})" for name, i in named.items() if isinstance(i, int) and i >= vocab_size]
    if beyond:
        findings.append(Finding(file, 0, f"{', '.join(beyond)} beyond the model's {vocab_size} ids", remedy))
    elif len(tokenizer) > vocab_size:  # harmless while no text uses them: Gemma 3 knows a token for images
        what = f"the tokenizer knows {len(tokenizer)} tokens, the model {vocab_size}"
        findings.append(Finding(file, 0, what, remedy, warning=True))
    return findings
