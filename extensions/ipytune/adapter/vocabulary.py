"""A tokenizer in GGUF's terms: tokens and types, merges, special ids, the name of the pre-tokenizer, the template.

GGUF names a pre-tokenizer that the reading program must know, and cannot carry one. It is recognised here from what the
tokenizer does (its regular expressions), not from a model's name; one that is not recognised is refused, for a reader
would split text in another way than the model was trained on, and nothing would tell.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipytune import stops
from ipytune.adapter.source import AdapterError

# Types of tokens, as the GGUF specification numbers them.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What a byte-level tokenizer does before merging -> (GGUF's name, whether a whole word that is a token is taken as it
# is). llama.cpp ties the second to the first.
_PRE_TOKENIZERS: dict[tuple[tuple[str, Any], ...], tuple[str, bool]] = {
    (("ByteLevel", True),): ("gpt-2", False),
    (("Digits", True), ("ByteLevel", True)): ("smollm", False),
    (("Split", _QWEN2), ("ByteLevel", False)): ("qwen2", False),
    (("Split", _LLAMA3), ("ByteLevel", False)): ("llama-bpe", True),
    (("Split", _TEKKEN), ("ByteLevel", False)): ("tekken", True),
}
_REMEDY = "Serve the merged directory with vLLM or transformers, or convert it with llama.cpp's own script."


@dataclass(frozen=True)
class Vocabulary:
    """model: "gpt2" is byte-level BPE, "llama" is SentencePiece's BPE. tokens, types: one for each embedding row.

    merges belong to the first kind, scores to the second. Ids are None where the tokenizer has no such token.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    bos: int | None
    eos: int | None
    pad: int | None
    unk: int | None
    also_ends: int | None
    """Another token that ends an answer, from the generation settings."""
    add_bos: bool
    add_eos: bool
    add_space: bool
    template: str | None


def read_vocabulary(directory: Path, rows: int) -> Vocabulary:
    """The vocabulary of a model directory whose embedding has `rows` rows; raises AdapterError."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise AdapterError(f"The tokenizer in {directory} has no tokenizer.json, which is what is converted. {_REMEDY}")
    described = json.loads(backend.to_str())
    model = described["model"]
    if model.get("type") != "BPE":
        raise AdapterError(f"The tokenizer in {directory} is {model.get('type')}, and only BPE is converted. {_REMEDY}")
    merges: tuple[str, ...] = ()
    scores: dict[str, float] = {}
    if _is_sentencepiece(described):
        kind, pre, scores = "llama", "default", _scores(model)
    else:
        kind, pre, merges = "gpt2", pre_tokenizer_name(described), tuple(_merges(model))
    tokens, types = _tokens(described, rows)
    plain, whole = backend.encode("a", add_special_tokens=False).ids, backend.encode("a").ids
    return Vocabulary(
        model=kind,
        pre=pre,
        tokens=tokens,
        types=types,
        merges=merges,
        scores=tuple(scores.get(token, -float(len(scores))) for token in tokens) if kind == "llama" else (),
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        unk=tokenizer.unk_token_id,
        also_ends=_also_ends(directory, tokenizer.eos_token_id),
        add_bos=len(whole) > len(plain) and whole[0] == tokenizer.bos_token_id != plain[0],
        add_eos=len(whole) > len(plain) and whole[-1] == tokenizer.eos_token_id != plain[-1],
        add_space=kind == "llama" and _adds_space(described),
        template=template_of(tokenizer),
    )


def template_of(tokenizer: Any) -> str | None:
    """The chat template that is used when none is named."""
    template = getattr(tokenizer, "chat_template", None)
    return template.get("default") if isinstance(template, dict) else template


def pre_tokenizer_name(described: dict[str, Any]) -> str:
    """GGUF's name for what a byte-level BPE tokenizer (a tokenizer.json) does before merging; raises AdapterError."""
    normalizer = described.get("normalizer")
    if (
        normalizer is not None and normalizer.get("type") != "NFC"
    ):  # readers of GGUF leave text as it is; NFC mostly does
        raise AdapterError(
            f"The tokenizer changes text first ({normalizer.get('type')}); GGUF cannot say so. {_REMEDY}"
        )
    steps = tuple(map(_step, _flat(described.get("pre_tokenizer"))))
    found = _PRE_TOKENIZERS.get(steps)
    if found is None:
        names = ", ".join(name for name, _ in _PRE_TOKENIZERS.values())
        raise AdapterError(
            f"The tokenizer splits text in a way for which no name in GGUF is known here: {list(steps)!r:.300}. Known "
            f"are those of {names}. {_REMEDY}"
        )
    name, whole_words = found
    if bool(described["model"].get("ignore_merges")) != whole_words:
        raise AdapterError(
            f"The tokenizer splits text as {name}, but {'merges' if whole_words else 'does not merge'} whole words, "
            f"and a reader of GGUF would not know. {_REMEDY}"
        )
    return name


def _flat(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    if step is None:
        return []
    return [each for inner in step["pretokenizers"] for each in _flat(inner)] if step["type"] == "Sequence" else [step]


def _step(step: dict[str, Any]) -> tuple[str, Any]:
    kind = step["type"]
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return kind, bool(step.get("use_regex", True))
    if kind == "Digits":
        return kind, bool(step["individual_digits"])
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return kind, step["pattern"].get("Regex")
    return kind, json.dumps(step, sort_keys=True)


def _merges(model: dict[str, Any]) -> list[str]:
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    if any(len(pair) != 2 or " " in pair[0] + pair[1] for pair in pairs):
        raise AdapterError(f"The tokenizer merges pieces with spaces in them, which GGUF cannot write. {_REMEDY}")
    return [" ".join(pair) for pair in pairs]


def _tokens(described: dict[str, Any], rows: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    model, added = described["model"], described.get("added_tokens") or []
    sentencepiece = _is_sentencepiece(described)
    entries: dict[int, tuple[str, int]] = {}
    for token, index in model["vocab"].items():
        is_byte = sentencepiece and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        entries[index] = (token, BYTE if is_byte else UNKNOWN if token == model.get("unk_token") else NORMAL)
    for token in added:
        if entries.get(token["id"], ("", NORMAL))[1] != UNKNOWN:
            entries[token["id"]] = (token["content"], CONTROL if token["special"] else USER_DEFINED)
    if entries and max(entries) >= rows:
        raise AdapterError(
            f"The tokenizer has tokens up to id {max(entries)}, the model's embedding has {rows} rows: they do not "
            f"belong together. Check which tokenizer was saved with the model."
        )
    listed = [entries.get(index, (f"[PAD{index}]", UNUSED)) for index in range(rows)]
    return tuple(token for token, _ in listed), tuple(kind for _, kind in listed)


def _is_sentencepiece(described: dict[str, Any]) -> bool:
    """BPE over characters with byte tokens for the rest, spaces written as U+2581: what SentencePiece makes."""
    if not described["model"].get("byte_fallback"):
        return False
    steps = _flat(described.get("pre_tokenizer"))
    normalizer = described.get("normalizer") or {}
    parts = normalizer.get("normalizers") or ([normalizer] if normalizer else [])
    plain = all(part.get("type") in {"Prepend", "Replace"} for part in parts)
    if plain and all(step["type"] == "Metaspace" and not step.get("split", False) for step in steps):
        return True
    raise AdapterError(f"The tokenizer is SentencePiece's with further steps, which are not converted. {_REMEDY}")


def _adds_space(described: dict[str, Any]) -> bool:
    steps = _flat(described.get("pre_tokenizer"))
    normalizer = described.get("normalizer") or {}
    parts = normalizer.get("normalizers") or [normalizer]
    return any(step.get("prepend_scheme", "always") != "never" for step in steps) or any(
        part.get("type") == "Prepend" for part in parts
    )


def _scores(model: dict[str, Any]) -> dict[str, float]:
    """SentencePiece merges the pair whose token scores highest; the rank of a token's first merge says the same."""
    scores: dict[str, float] = {}
    for rank, merge in enumerate(model["merges"]):
        scores.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -float(rank))
    return scores


def _also_ends(directory: Path, eos: int | None) -> int | None:
    try:
        ends = json.loads((directory / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError):
        return None
    return next((end for end in stops.listed(ends) if end != eos), None)
