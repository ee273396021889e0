"""Proof that the merged model and the GGUF file answer as base and adapter do.

The same questions go through all of them, computed in float32, so that what differs is what was written. Measured:
the greatest difference of a logit, whether greedy answers are the same, the perplexity, what is left of that which the
adapter changed, and whether template, stop token and vocabulary are the same. A GGUF file is read by transformers for
its weights (the configuration is given, for transformers' reader keeps only part of it) and its metadata is compared
field by field.

Needs 4 bytes a parameter of memory; the models are loaded one after the other.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from ipytune.adapter.proof import TOLERANCES, Form, Proof, Reading, compare, rms
from ipytune.adapter.source import Adapter, AdapterError, open_adapter, tokenizer_directory
from ipytune.adapter.vocabulary import template_of
from ipytune.data.findings import DatasetError
from ipytune.data.template import TemplateError, Tokens, prompt_ids, render
from ipytune.lora.hardware import choose_device
from ipytune.lora.quiet import quiet_libraries
from ipytune.processor import usable_cpus
from ipytune.runs import Run
from ipytune.runs.process import versions
from ipytune.stops import stop_ids

_KINDS = {0: "float32", 1: "float16", 32: "bfloat16", 7: "q8_0"}  # general.file_type of a GGUF file
PROOF = "proof.json"
QUESTIONS = 8
ANSWER_TOKENS = 48  # a difference that matters shows within the first; more would make the proof slow on a CPU
GENERAL = (
    "Write one sentence about the sea.",
    "What is 17 + 25?",
    "Name three things that one finds in a kitchen.",
    "Translate to French: good morning, my friend.",
)


def verify(
    source: Run | Path | str,
    merged: Path | str | None = None,
    gguf: Path | str | None = None,
    questions: Sequence[str] | None = None,
    base: str | Path | None = None,
    out: Path | str | None = None,
) -> Proof:
    """Compares what was written with base and adapter, and writes proof.json (beside the merged model, or to `out`).

    questions: of the user; by default the held-out ones of the run, else a few general ones.
    Raises AdapterError when there is nothing to compare. A difference is no error: look at `passed`.
    """
    if merged is None and gguf is None:
        raise AdapterError("Nothing to compare: give the merged directory, the GGUF file, or both.")
    adapter = open_adapter(source, base)
    folder, file = (Path(given).expanduser() if given is not None else None for given in (merged, gguf))
    for path, there in ((folder, folder is None or folder.is_dir()), (file, file is None or file.is_file())):
        if not there:
            raise AdapterError(f"There is no {path}. Write it with merge or gguf first.")
    quiet_libraries()
    torch.set_num_threads(usable_cpus())
    tokenizer = _tokenizer(tokenizer_directory(adapter))
    prompts, texts = _asked(adapter, tokenizer, questions)

    with _reference(adapter) as model:
        stops = stop_ids(model.get_base_model(), tokenizer)
        answers = [greedy(model, prompt, ANSWER_TOKENS, stops) for prompt in prompts]
        texts = texts or [_answer(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        reference = _read(model, prompts, answers, texts)
        with model.disable_adapter():
            effect = rms(_read(model, prompts, answers, []).logits - reference.logits)
    asked = (prompts, answers, texts)
    forms = []
    if folder is not None:
        with _model(folder) as model:
            reading = _read(model, *asked)
        findings = _same_words(tokenizer, _tokenizer(folder))
        forms.append(_form("merged", folder, _stored_dtype(folder), reading, reference, answers, effect, findings))
    if file is not None:
        metadata = read_metadata(file)
        directory = folder or adapter.base_directory()
        findings = _gguf_findings(metadata, directory, tokenizer)
        with _model(directory, file) as model:
            reading = _read(model, *asked)
        kind = _KINDS.get(metadata.get("general.file_type", -1), "q8_0")
        forms.append(_form("gguf", file, kind, reading, reference, answers, effect, findings))
    proof = Proof(
        adapter=str(adapter.path),
        base=adapter.base,
        questions=len(prompts),
        tokens=sum(map(len, answers)),
        perplexity=reference.perplexity,
        forms=tuple(forms),
        versions=versions(),
    )
    proof.write(Path(out) if out is not None else (folder or Path(file).parent) / PROOF)  # type: ignore[arg-type]
    return proof


@torch.inference_mode()
def greedy(model: Any, prompt: Sequence[int], limit: int, stops: Collection[int]) -> list[int]:
    """The likeliest token each time, until a stop token (included) or the limit; no penalties."""
    answer: list[int] = []
    feed, cache = list(prompt), None
    while len(answer) < limit and (not answer or answer[-1] not in stops):
        said = model(input_ids=torch.tensor([feed], device=model.device), past_key_values=cache, use_cache=True)
        answer.append(int(said.logits[0, -1].argmax()))
        feed, cache = answer[-1:], said.past_key_values
    return answer


def read_metadata(file: Path) -> dict[str, Any]:
    """The metadata of a GGUF file, arrays as lists; raises AdapterError when it is none."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except (ValueError, OSError) as error:
        raise AdapterError(f"{file} is no GGUF file: {error}. Write it with gguf.") from error
    found = {name: field.contents() for name, field in reader.fields.items()}
    return found | {"tensors": sorted(tensor.name for tensor in reader.tensors)}


def _form(
    form: Literal["merged", "gguf"],
    path: Path,
    dtype: str,
    reading: Reading,
    reference: Reading,
    answers: Sequence[Sequence[int]],
    effect: float,
    findings: Sequence[str],
) -> Form:
    numbers = compare(reading, reference, answers, effect, dtype)
    numbers["findings"] = (*findings, *numbers["findings"])
    return Form(form=form, path=str(path), dtype=dtype, **numbers)


def _asked(adapter: Adapter, tokenizer: Any, questions: Sequence[str] | None) -> tuple[list[list[int]], list[Tokens]]:
    """Token ids of the questions, and the conversations to which the perplexity belongs (empty: take the answers)."""
    conversations = [] if questions else _held_out(adapter)
    if conversations:
        try:
            texts = [render(tokenizer, conversation) for conversation in conversations]
            return [prompt_ids(tokenizer, conversation[:-1]) for conversation in conversations], texts
        except TemplateError:
            pass  # the template is a matter of training; here any question will do
    asked = list(questions or GENERAL)
    if not template_of(tokenizer):
        return [tokenizer(question)["input_ids"] for question in asked], []
    return [prompt_ids(tokenizer, [{"role": "user", "content": question}]) for question in asked], []


def _held_out(adapter: Adapter) -> list[list[dict[str, str]]]:
    if adapter.run is None:
        return []
    from ipytune.data.validate import load

    try:
        dataset = load(adapter.run.config)
        examples = dataset.held_out or dataset.train
    except (DatasetError, OSError, ValueError):
        return []  # moved or changed since: general questions do
    conversations = [example.as_dicts() for example in examples]
    asked = [each for each in conversations if len(each) > 1 and each[-1]["role"] == "assistant"]
    return asked[:QUESTIONS]


def _answer(prompt: Sequence[int], answer: Sequence[int]) -> Tokens:
    return Tokens((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))


@torch.inference_mode()
def _read(
    model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], texts: Sequence[Tokens]
) -> Reading:
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer[:-1]]], device=model.device)
        rows.append(model(input_ids=ids).logits[0, len(prompt) - 1 :].float().cpu())
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([text.ids], device=model.device)
        at = [i for i in range(1, len(text)) if text.learned[i]]
        logits = model(input_ids=ids).logits[0, [i - 1 for i in at]].float()
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, at], reduction="sum"))
        count += len(at)
    return Reading(torch.cat(rows), math.exp(total / count) if count else math.nan)


@contextmanager
def _reference(adapter: Adapter) -> Iterator[Any]:
    from peft import PeftModel

    with _model(adapter.base_directory()) as base:
        yield PeftModel.from_pretrained(base, str(adapter.path)).eval()


@contextmanager
def _model(directory: Path, gguf: Path | None = None) -> Iterator[Any]:
    """A model in float32, whose memory is given back at the end."""
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, LlamaConfig

    device = choose_device("auto")
    options: dict[str, Any] = {"dtype": torch.float32}
    where = directory
    if gguf is not None:
        config: Any = AutoConfig.from_pretrained(directory)
        if config.model_type == "mistral":  # which is Llama in GGUF
            values = config.to_dict()
            for name in ("model_type", "architectures", "sliding_window", "transformers_version"):
                values.pop(name, None)
            config = LlamaConfig(**values)
        where = gguf.parent
        options |= {"gguf_file": gguf.name, "config": config, "quantization_config": GgufConfig(dequantize=True)}
    model: Any = AutoModelForCausalLM.from_pretrained(where, **options)
    model = model.to(device).eval()
    try:
        yield model
    finally:
        del model
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


def _stored_dtype(directory: Path) -> str:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    return dtype if dtype in TOLERANCES else "float32"


def _same_words(ours: Any, theirs: Any) -> list[str]:
    findings = []
    if template_of(ours) != template_of(theirs):
        findings.append("the chat template is not the one of training")
    if ours.eos_token_id != theirs.eos_token_id:
        findings.append(f"the stop token is {theirs.eos_token_id}, in training it was {ours.eos_token_id}")
    if ours.get_vocab() != theirs.get_vocab():
        findings.append("the vocabulary is not the one of training")
    return findings


def _gguf_findings(metadata: dict[str, Any], directory: Path, tokenizer: Any) -> list[str]:
    """What the file's metadata says otherwise than the model and its tokenizer."""
    from transformers import AutoConfig

    from ipytune.adapter.gguf import metadata_of

    expected = metadata_of(AutoConfig.from_pretrained(directory)) | {
        "tokenizer.chat_template": template_of(tokenizer),
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
    }
    findings = [
        f"{name} is {metadata.get(name)!r:.60}, not {value!r:.60}"
        for name, value in expected.items()
        if value is not None and not _equal(metadata.get(name), value)
    ]
    tokens = metadata.get("tokenizer.ggml.tokens") or []
    moved = [token for token, index in tokenizer.get_vocab().items() if index >= len(tokens) or tokens[index] != token]
    if moved:
        findings.append(f"{len(moved)} tokens are not where the tokenizer has them, {moved[0]!r} for one")
    return findings


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=1e-6)  # float32 in the file
    return bool(found == expected)
