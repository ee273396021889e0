"""One trainer over one workload, in a process of its own: `python -m benchmarks.lora.trainers SPEC.json`.

Writes one JSON: for every optimiser step the second at which it ended (of the process), its real tokens (no padding)
and its loss; peak memory in bytes; device, dtype of the base, threads, parameters.

    ours              ipytune's loop
    ours-fp32         the same with a float32 base, where `ours` has chosen bfloat16 (on a CPU with matrix units)
    trl-default       SFTTrainer as it comes, but for learning rate and length
    trl-tuned         fp32 on a CPU and bf16 on a GPU, no activation checkpointing, packing
    trl-tuned-bf16    the same on a CPU with a bfloat16 base and autocast: faster where the CPU has matrix units
    plain-padded      a loop of torch + peft as one writes it: padded batches, all logits, bf16 autocast on a GPU

All see the same conversations; all but the packing ones also the same ones in each step, so that their losses can be
laid over one another.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.lora.workload import in_order

CONTENDERS = ("ours", "ours-fp32", "trl-default", "trl-tuned", "trl-tuned-bf16", "plain-padded")
Steps = list[dict[str, Any]]


def ours(spec: dict[str, Any], dtype: str) -> tuple[Steps, dict[str, Any]]:
    from ipytune import openmp
    from ipytune.data.validate import load
    from ipytune.lora.config import RunConfig
    from ipytune.runs.directory import RunDirectory
    from ipytune.runs.recorder import Recorder

    config = RunConfig(
        model=spec["model"],
        train_file=Path(spec["data"]),
        lora={"rank": spec["rank"], "alpha": 2 * spec["rank"]},
        learning_rate=spec["learning_rate"],
        schedule="constant",
        warmup_steps=0,
        batch_size=spec["batch_size"],
        max_steps=spec["steps"],
        max_length=spec["max_length"],
        row_tokens=spec["row_tokens"],
        checkpoint_every=0,
        compile=spec["compile"],
        dtype=dtype,
        seed=spec["seed"],
    )
    directory = RunDirectory(Path(spec["folder"]) / f"run-{os.getpid()}")
    directory.create(config.as_yaml())
    dataset = load(config)
    openmp.spin_briefly()  # as ipytune.lora.train does it: before torch is imported
    from ipytune.lora.loop import train

    ends: list[float] = []

    class Clocked(Recorder):
        def step(self, *arguments: Any, **changes: Any) -> None:
            super().step(*arguments, **changes)
            ends.append(time.monotonic())

    train(config, dataset, directory, Clocked(directory), lambda: None)
    metrics = [event for event in directory.read_events()[0] if event["kind"] == "metric"]
    steps, before = [], 0
    for ended, event in zip(ends, metrics, strict=True):
        steps.append({"ended": ended, "tokens": event["tokens"] - before, "loss": event["loss"]})
        before = event["tokens"]
    report = directory.read_report()
    return steps, {"dtype": report["dtype"], "row_tokens": report["row_tokens"], "compiled": report["compiled"]}


def trl(spec: dict[str, Any], tuned: bool, half: bool) -> tuple[Steps, dict[str, Any]]:
    """half: a bfloat16 base; a tuned one otherwise computes in float32."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    on_gpu = torch.cuda.is_available()
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if on_gpu:
                torch.cuda.synchronize()
            ends.append(time.monotonic())

    settings: dict[str, Any] = {
        "output_dir": spec["folder"],
        "max_length": spec["max_length"],
        "learning_rate": spec["learning_rate"],
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": spec["batch_size"],
        "train_sampling_strategy": "sequential",  # the rows come in our order
        "max_steps": spec["steps"],
        "logging_steps": 1,
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": [],
        "seed": spec["seed"],
        "use_cpu": not on_gpu,
    }
    rows = in_order(spec)
    if tuned:
        tokens = sum(len(ids) for ids, _ in tokenised(spec, rows))
        packed_rows = max(1, round(tokens / spec["steps"] / spec["max_length"]))  # of a step
        settings |= {
            "bf16": half or on_gpu,
            "gradient_checkpointing": False,
            "packing": True,
            "train_sampling_strategy": "random",  # packing sorts by length
            # CPU: one row after the other. Of several in one pass TRL makes a long one, whose mask grows as its square.
            "per_device_train_batch_size": packed_rows if on_gpu else 1,
            "gradient_accumulation_steps": 1 if on_gpu else packed_rows,
        }
        if half or on_gpu:
            settings["model_init_kwargs"] = {"dtype": "bfloat16"}
    trainer = SFTTrainer(
        model=spec["model"],
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            r=spec["rank"], lora_alpha=2 * spec["rank"], target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[Clock()],
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    steps, before = [], 0.0
    for ended, entry in zip(ends, logged, strict=True):
        steps.append({"ended": ended, "tokens": entry["num_tokens"] - before, "loss": entry["loss"]})
        before = entry["num_tokens"]
    trained: Any = trainer.model
    base = next(parameter for parameter in trained.parameters() if not parameter.requires_grad)
    return steps, {"dtype": str(base.dtype).removeprefix("torch."), "autocast": bool(trainer.args.bf16)}


def plain_padded(spec: dict[str, Any]) -> tuple[Steps, dict[str, Any]]:
    import contextlib

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    padding = AutoTokenizer.from_pretrained(spec["model"]).pad_token_id or 0
    model: Any = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32)
    model = model.to(device)
    lora = LoraConfig(r=spec["rank"], lora_alpha=2 * spec["rank"], target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=spec["learning_rate"])
    rows = tokenised(spec, in_order(spec))
    steps: Steps = []
    for step in range(spec["steps"]):
        chosen = rows[step * spec["batch_size"] :][: spec["batch_size"]]
        longest = max(len(ids) for ids, _ in chosen)
        ids = torch.full((len(chosen), longest), padding)
        labels = torch.full((len(chosen), longest), -100)
        mask = torch.zeros((len(chosen), longest), dtype=torch.long)
        for i, (tokens, prompt_length) in enumerate(chosen):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            mask[i, : len(tokens)] = 1
            labels[i, prompt_length : len(tokens)] = ids[i, prompt_length : len(tokens)]
        half = torch.autocast("cuda", dtype=torch.bfloat16) if on_gpu else contextlib.nullcontext()
        with half:
            loss = model(
                input_ids=ids.to(device), attention_mask=mask.to(device), labels=labels.to(device), use_cache=False
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        value = float(loss)
        steps.append({"ended": time.monotonic(), "tokens": int(mask.sum()), "loss": value})
    return steps, {"dtype": "float32"}


def tokenised(spec: dict[str, Any], rows: list[dict[str, Any]]) -> list[tuple[list[int], int]]:
    """Of each conversation its tokens, and how many of them the prompt takes."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(spec["model"])
    found = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"][: spec["max_length"]]
        found.append((ids, len(tokenizer(prompt, add_special_tokens=False)["input_ids"])))
    return found


def peak_memory() -> int:
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    from ipytune.memory.peak import peak_resident

    return peak_resident()


def parameters_of(model: str) -> int:
    from ipytune.memory.shape import read_shape

    return read_shape(model).parameters


def main() -> int:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    contender = spec["contender"]
    if contender.startswith("ours"):
        steps, facts = ours(spec, "float32" if contender == "ours-fp32" else "auto")
    elif contender == "plain-padded":
        steps, facts = plain_padded(spec)
    else:
        steps, facts = trl(spec, tuned=contender != "trl-default", half=contender == "trl-tuned-bf16")

    import torch

    found = {
        "steps": [{**step, "ended": step["ended"] - spec["began"]} for step in steps],
        **facts,
        "peak_memory_bytes": peak_memory(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "parameters": parameters_of(spec["model"]),
    }
    Path(spec["output"]).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
