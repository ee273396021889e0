"""The model card of a run: what was trained on what, how well, how to load it, and what nobody has checked.

One text for people (Markdown) under a header for model hubs (YAML). It holds facts of the run directory only, no path
of this machine, and no licence: that is its author's to choose. Every value is escaped for where it stands.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from ipytune import models
from ipytune.adapter.load import default_name, served_rank
from ipytune.adapter.source import Adapter, AdapterError, open_adapter
from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.runs import Run
from ipytune.runs.directory import replace_text

Form = Literal["adapter", "merged"]

README = "README.md"
# Ids on a model hub of the models that come in a package.
_HUB_IDS = {models.SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_SHOWN = (
    "learning_rate",
    "schedule",
    "warmup_steps",
    "batch_size",
    "epochs",
    "max_steps",
    "max_length",
    "weight_decay",
    "quantise",
    "seed",
)


def card(run: Run | Path | str, form: Form = "adapter") -> str:
    """The card of a run's adapter, or of the model merged from it. Raises AdapterError when either is missing."""
    adapter = open_adapter(run)
    if adapter.run is None:
        raise AdapterError(
            f"{adapter.path} is an adapter without its run, of which the card tells. Name the run directory."
        )
    config, report = adapter.run.config, _report(adapter.run)
    name = default_name(adapter)
    base = hub_id(config.model)
    parts = [
        _header(name, base, form),
        f"# {_plain(name)}",
        _introduction(config, base, form),
        "## How it was trained\n\n" + _table(_facts(config, report, adapter)),
        "## How to load it\n\n" + _loading(adapter, name, base, form),
        "## Proof\n\n" + _proof(adapter, form) if _proof(adapter, form) else "",
        "## Limits\n\n" + _limits(config, report),
        "## Versions and hardware\n\n"
        + _table({**_flat(report.get("hardware")), **_flat(report.get("versions") or config.versions)}),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_card(run: Run | Path | str, merged: Path | str | None = None) -> list[Path]:
    """Writes README.md beside the run's adapter, and into the merged directory where one is given."""
    adapter = open_adapter(run)
    targets: list[tuple[Path, Form]] = [(adapter.path / README, "adapter")]
    if merged is not None:
        folder = Path(merged).expanduser()
        if not (folder / "config.json").is_file():
            raise AdapterError(f"{folder} is no model directory: it holds no config.json. Merge the adapter first.")
        targets.append((folder / README, "merged"))
    for path, form in targets:
        replace_text(path, card(run, form))
    return [path for path, _ in targets]


def hub_id(model: str) -> str | None:
    """The base's id on a model hub; None for a directory, whose place means nothing elsewhere."""
    known = _HUB_IDS.get(model, model)
    return known if _HUB_ID.fullmatch(known) and not Path(model).expanduser().is_dir() else None


def _header(name: str, base: str | None, form: Form) -> str:
    fields: dict[str, Any] = {
        **({"base_model": base, "base_model_relation": "adapter" if form == "adapter" else "finetune"} if base else {}),
        "library_name": "peft" if form == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "model_name": name,
        "tags": ["lora", "sft", "ipytune", *(["base_model:adapter:" + base] if base and form == "adapter" else [])],
    }
    note = "# license: yours to choose; the licences of the base model and of the data bind too\n"
    return "---\n" + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True) + note + "---"


def _introduction(config: RunConfig, base: str | None, form: Form) -> str:
    what = "A LoRA adapter for" if form == "adapter" else "A model fine-tuned with LoRA, the adapter merged in, from"
    return f"{what} {_code(base or Path(config.model).name)}, trained with ipytune on {_code(config.train_file.name)}."


def _facts(config: RunConfig, report: Mapping[str, Any], adapter: Adapter) -> dict[str, str]:
    facts = {
        "Base model": _code(hub_id(config.model) or Path(config.model).name),
        "Training data": _data(config.train_file, config.train_sha256, report.get("examples")),
    }
    if config.eval_file is not None:
        facts["Held-out data"] = _data(config.eval_file, config.eval_sha256, report.get("eval_examples"))
    facts["Steps"] = (
        f"{report.get('step', '?')} of {report.get('total_steps', '?')}, ended by {_plain(report.get('ended_by', '?'))}"
    )
    for label, key, form in (
        ("Loss at the beginning", "first_loss", "{:.4f}"),
        ("Loss at the end", "loss", "{:.4f}"),
        ("Loss on held-out data", "eval_loss", "{:.4f}"),
        ("Step of this adapter", "adapter_step", "{}"),
        ("Tokens trained on", "tokens", "{:,}"),
        ("Tokens per second", "tokens_per_second", "{:,.0f}"),
        ("Training time", "training_seconds", "{:,.0f} s"),
        ("Peak memory", "peak_memory_bytes", "{:,} bytes"),
        ("Trainable parameters", "trainable_parameters", "{:,}"),
        ("Type of the frozen base", "dtype", "{}"),
    ):
        if report.get(key) is not None:
            facts[label] = _plain(form.format(report[key]))
    facts["LoRA"] = _lora(config.lora, adapter)
    given = config.model_dump(mode="json")
    facts |= {name: _code(given[name]) for name in _SHOWN if given.get(name) not in (None, "none")}
    return facts


def _lora(settings: LoraSettings, adapter: Adapter) -> str:
    targets = settings.targets if isinstance(settings.targets, str) else ", ".join(settings.targets)
    variants = [
        name
        for name, on in (("rsLoRA", settings.rslora), ("DoRA", settings.dora), ("PiSSA", settings.init == "pissa"))
        if on
    ]
    written = f" (written with rank {adapter.rank})" if adapter.rank != settings.rank else ""
    return _plain(
        f"rank {settings.rank}{written}, alpha {settings.alpha:g}, dropout {settings.dropout:g}, on {targets}"
        + "".join(f", {name}" for name in variants)
    )


def _data(file: Path, checksum: str | None, examples: Any) -> str:
    parts = [_code(file.name)]
    if isinstance(examples, int):
        parts.append(f"{examples:,} conversations")
    try:
        parts.append(f"{file.stat().st_size:,} bytes")
    except OSError:
        pass  # moved since; the checksum still says which it was
    if checksum:
        parts.append(f"sha256 {_code(checksum)}")
    return ", ".join(parts)


def _loading(adapter: Adapter, name: str, base: str | None, form: Form) -> str:
    """Commands to be run in the directory of this card; the base by its id, or by a place that the reader fills in."""
    source, quoted = base or "path/to/the/base/model", shlex.quote(name)
    python, shell = _block("python"), _block("bash")
    question = 'messages = [{"role": "user", "content": "…"}]\n'
    answer = (
        "ids = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n'
        ")\n"
        "print(tokenizer.decode(model.generate(**ids, max_new_tokens=256)[0]))"
    )
    if form == "merged":
        return "\n\n".join(
            [
                "transformers:",
                python(
                    "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                    'model = AutoModelForCausalLM.from_pretrained(".", dtype="auto")\n'
                    'tokenizer = AutoTokenizer.from_pretrained(".")\n' + question + answer
                ),
                "vLLM:",
                shell(f"vllm serve . --served-model-name {quoted}"),
                "llama.cpp, through a GGUF file:",
                shell(
                    f"ipytune gguf . --out {shlex.quote(name + '.gguf')} --kind f16\n"
                    f"llama-cli -m {shlex.quote(name + '.gguf')}"
                ),
            ]
        )
    blocks = [
        "PEFT and transformers:",
        python(
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'base = AutoModelForCausalLM.from_pretrained({source!r}, dtype="auto")\n'
            f'model = PeftModel.from_pretrained(base, ".")\ntokenizer = AutoTokenizer.from_pretrained({source!r})\n'
            + question
            + answer
        ),
    ]
    if adapter.settings.get("use_dora"):
        blocks.append("vLLM serves no DoRA adapters: merge it first, and serve the merged directory.")
    else:
        blocks += [
            "vLLM, beside the base:",
            shell(
                f"vllm serve {shlex.quote(source)} --enable-lora --max-lora-rank {served_rank(adapter.rank)} "
                f"--lora-modules {shlex.quote(name + '=.')}"
            ),
        ]
    blocks += [
        "As a plain model, and as GGUF for llama.cpp:",
        shell(
            f"ipytune merge . --base {shlex.quote(source)} --out ../merged\n"
            f"ipytune gguf ../merged --out {shlex.quote('../' + name + '.gguf')} --kind f16\n"
            f"llama-cli -m {shlex.quote('../' + name + '.gguf')}"
        ),
    ]
    return "\n\n".join(blocks)


def _proof(adapter: Adapter, form: Form) -> str:
    """What `verify` found, where it was run for this adapter: beside it, or in the merged directory of this card."""
    assert adapter.run is not None
    try:
        proof = json.loads((adapter.run.path / "proof.json").read_text(encoding="utf-8"))
        rows = {
            _plain(f"{each['form']} ({each['dtype']})"): (
                f"logits within {each['logit_difference_relative']:.2g} of their spread, {each['same_answers']} of "
                f"{proof['questions']} greedy answers the same, perplexity {each['perplexity_change']:+.2%}"
            )
            for each in proof["forms"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return "Against base and adapter, in float32:\n\n" + _table(rows)


def _limits(config: RunConfig, report: Mapping[str, Any]) -> str:
    held_out = (
        "Its loss on held-out data is above; how right its answers are was not measured here."
        if report.get("eval_loss") is not None
        else "There was no held-out data: nothing here says how it does on questions that it has not seen."
    )
    lines = [
        held_out,
        "It was trained on the data named above and has learned its form, its mistakes and its gaps; on other tasks it "
        "may be worse than its base.",
        "What the base model gets wrong, or should not say, this one may too. Nobody has checked its safety.",
        f"It has seen conversations of up to {config.max_length} tokens.",
        "It expects the chat template it was trained with, which comes with the tokenizer.",
    ]
    if report.get("ended_by") not in (None, "steps"):
        lines.append(f"Training ended before its last step ({_plain(report['ended_by'])}).")
    return "\n".join(f"- {line}" for line in lines)


def _report(run: Run) -> dict[str, Any]:
    try:
        return run.report()
    except (OSError, ValueError):
        return {}  # still running, or stopped by force: the card tells what is known


def _flat(facts: Any) -> dict[str, str]:
    return {_plain(name): _code(value) for name, value in facts.items()} if isinstance(facts, dict) else {}


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _plain(value: Any) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]<>#|!&~$])", r"\\\1", text)


def _code(value: Any) -> str:
    """As code; within a table, so a bar is escaped. A value with backticks gets a longer fence."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def _block(language: str) -> Any:
    return lambda code: f"```{language}\n{code}\n```"
