"""The settings as fields of a form: which are shown where, and as what; labels, choices and help come from RunConfig.

Pure; what it gives is plain data, to be drawn by a widget or printed.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ipytune.finetune.draft import NAMES, Draft
from ipytune.lora.config import RunConfig

Kind = Literal["text", "number", "choice", "choices", "switch", "lines"]

DATA = (
    "train_file",
    "eval_file",
    "model",
    "data.layout",
    "data.learn",
    "max_length",
    "data.too_long",
    "data.eval_fraction",
)
SETTINGS = ("learning_rate", "epochs", "max_steps", "batch_size", "lora.rank", "lora.alpha", "eval_every", "patience")
MORE = (
    *("lora.targets", "lora.dropout", "lora.rslora", "lora.dora", "lora.init", "lora.plus_ratio", "quantise"),
    *("schedule", "warmup_steps", "weight_decay", "max_grad_norm", "max_minutes", "row_tokens", "seed", "min_delta"),
    *("sample_prompts", "sample_every", "sample_tokens", "gradient_checkpointing", "compile", "parallel"),
    *("device", "dtype", "threads", "log_every", "checkpoint_every", "keep_checkpoints", "track"),
)
LABELS = {
    "train_file": "Conversations to learn from",
    "eval_file": "Held-out conversations",
    "data.layout": "Layout of the columns",
    "data.learn": "What is learned",
    "data.too_long": "Conversations that are too long",
    "data.eval_fraction": "Part held out",
    "max_length": "Longest conversation (tokens)",
    "row_tokens": "Tokens in one forward pass",
    "batch_size": "Conversations per step",
    "epochs": "Passes over the data",
    "max_steps": "Steps",
    "max_minutes": "Minutes at most",
    "eval_every": "Steps between held-out losses",
    "checkpoint_every": "Steps between checkpoints",
    "keep_checkpoints": "Checkpoints kept",
    "sample_prompts": "Questions asked while it learns",
    "sample_every": "Steps between these answers",
    "sample_tokens": "Longest such answer (tokens)",
    "log_every": "Steps between points of the curve",
    "lora.rslora": "Rank-stabilised scale (rsLoRA)",
    "lora.dora": "DoRA",
    "lora.init": "Beginning of the adapter",
    "lora.plus_ratio": "LoRA+ ratio",
    "lora.targets": "Layers with an adapter",
    "quantise": "4-bit base (QLoRA)",
    "parallel": "Several processes",
    "track": "Also written to",
}


@dataclass(frozen=True)
class Field:
    """One setting as a form shows it. help is a sentence or two, with the reason for the default."""

    name: str
    label: str
    kind: Kind
    help: str
    choices: tuple[str, ...] = ()
    optional: bool = False
    """Whether it may be left empty."""


def label(name: str) -> str:
    return LABELS.get(name, name.rpartition(".")[2].replace("_", " ").capitalize())


def fields(names: Sequence[str]) -> list[Field]:
    return [_field(name) for name in names]


def shown(names: Sequence[str], draft: Draft) -> list[dict[str, Any]]:
    """Fields with what is in them and what is wrong with it, for the browser."""
    errors = draft.errors
    return [
        {
            "name": field.name,
            "label": field.label,
            "kind": field.kind,
            "help": field.help,
            "choices": list(field.choices),
            "value": as_shown(field.kind, draft.value(field.name)),
            "placeholder": "" if NAMES[field.name] in (None, ()) else as_shown(field.kind, NAMES[field.name]),
            "error": errors.get(field.name, ""),
        }
        for field in fields(names)
    ]


def as_shown(kind: Kind, value: Any) -> Any:
    """A setting's value as its control holds it: text, a truth value, or a list of chosen words."""
    if kind == "switch":
        return bool(value)
    if kind == "choices":
        return [str(item) for item in value or ()]
    if kind == "lines":
        return "\n".join(str(item) for item in value or ())
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def as_typed(name: str, given: Any) -> Any:
    """What a control sends, as the draft takes it. Anything that is not text, truth or a list of texts is refused."""
    kind = _field(name).kind
    if kind == "switch":
        return bool(given)
    if kind in ("lines", "choices"):
        lines = given.splitlines() if isinstance(given, str) else given
        if not isinstance(lines, (list, tuple)):
            raise ValueError(f"{name} takes a list of texts, not {given!r}.")
        return [str(line) for line in lines if str(line).strip()]
    if name == "lora.targets" and isinstance(given, str) and given.strip() != "all-linear":
        return [part.strip() for part in given.split(",") if part.strip()] or None
    return str(given)


@cache
def _field(name: str) -> Field:
    section, _, leaf = name.rpartition(".")
    owner: Any = RunConfig.model_fields[section].annotation if section else RunConfig
    info = owner.model_fields[leaf]
    kind, choices, optional = _control(info.annotation)
    return Field(name, label(name), kind, _help(info.description or ""), choices, optional)


def _help(docstring: str) -> str:
    """A docstring as a user reads it, who types nothing for None."""
    return " ".join(docstring.split()).replace("`", "").replace("None: ", "empty: ")


def _control(annotation: Any) -> tuple[Kind, tuple[str, ...], bool]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _control(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not type(None)]
        optional = len(inner) < len(get_args(annotation))
        kind, choices, _ = _control(inner[0]) if len(inner) == 1 else ("text", (), False)
        return kind, choices, optional
    if origin is Literal:
        return "choice", tuple(map(str, get_args(annotation))), False
    if origin is tuple:
        kind, choices, _ = _control(get_args(annotation)[0])
        return ("choices" if kind == "choice" else "lines"), choices, True
    if annotation is bool:
        return "switch", (), False
    if annotation in (int, float):
        return "number", (), False
    return "text", (), False


def mapping(columns: Sequence[str], names: Sequence[str], set_to: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each of our columns: which of the file's it is, and which may be chosen."""
    return [
        {"name": name, "value": set_to.get(name, name if name in columns else ""), "choices": list(columns)}
        for name in names
    ]
