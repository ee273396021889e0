"""One trainer over one workload, in a process of its own: `python -m benchmarks.lora.trainers SPEC.json`.

Prints one JSON: for every optimiser step its seconds, real tokens (no padding) and loss; peak memory in bytes; seconds
from the beginning of the process to the end of the first step.

    ours              ipytune's loop
    trl-default       SFTTrainer as it comes, but for the learning rate and the length
    trl-tuned         fp32 on a CPU and bf16 on a GPU, no activation checkpointing, packing
    plain-padded      a loop of torch + peft as one writes it: padded batches, all logits, bf16 autocast on a GPU
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()
CONTENDERS = ("ours", "trl-default", "trl-tuned", "plain-padded")


def conversations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(spec["data"]).read_text(encoding="utf-8").splitlines()]


def ours(spec: dict[str, Any]) -> dict[str, Any]:
    from ipytune.data.validate import load
    from ipytune.lora.config import RunConfig
    from ipytune.lora.loop import train
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
        compile=spec.get("compile", "auto"),
    )
    directory = RunDirectory(Path(spec["folder"]) / f"run-{os.getpid()}")
    directory.create(config.as_yaml())
    train(config, load(config), directory, Recorder(directory), lambda: None)
    steps, before_s, before_t = [], 0.0, 0
    for event in directory.read_events()[0]:
        if event["kind"] == "metric":
            seconds, tokens = event["elapsed_seconds"] - before_s, event["tokens"] - before_t
            steps.append({"seconds": seconds, "tokens": tokens, "loss": event["loss"]})
            before_s, before_t = event["elapsed_seconds"], event["tokens"]
    report = directory.read_report()
    return {"steps": steps, "seconds_to_first_step": report["seconds_to_first_step"], "dtype": report["dtype"]}


def trl(spec: dict[str, Any], tuned: bool) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    on_gpu = torch.cuda.is_available()
    marks: list[dict[str, Any]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append({"began": time.monotonic()})

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if on_gpu:
                torch.cuda.synchronize()
            marks[-1]["ended"] = time.monotonic()

    rows_of_a_step = max(1, round(spec["batch_size"] * spec["mean_tokens"] / spec["max_length"]))
    settings: dict[str, Any] = {
        "output_dir": spec["folder"],
        "max_length": spec["max_length"],
        "learning_rate": spec["learning_rate"],
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": spec["batch_size"],
        "max_steps": spec["steps"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "seed": 0,
        "use_cpu": not on_gpu,
    }
    if tuned:
        settings |= {
            "bf16": on_gpu,
            "gradient_checkpointing": False,
            "packing": True,
            "per_device_train_batch_size": rows_of_a_step,
        }
    trainer = SFTTrainer(
        model=spec["model"],
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_list(conversations(spec)),
        peft_config=LoraConfig(
            r=spec["rank"], lora_alpha=2 * spec["rank"], target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[Clock()],
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    steps, before = [], 0.0
    for mark, entry in zip(marks, logged, strict=False):
        tokens = entry["num_tokens"] - before
        steps.append({"seconds": mark["ended"] - mark["began"], "tokens": tokens, "loss": entry["loss"]})
        before = entry["num_tokens"]
    return {"steps": steps, "seconds_to_first_step": marks[0]["ended"] - BEGAN}


def plain_padded(spec: dict[str, Any]) -> dict[str, Any]:
    import contextlib

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    model: Any = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32).to(device)
    lora = LoraConfig(r=spec["rank"], lora_alpha=2 * spec["rank"], target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=spec["learning_rate"])
    rows = []
    for row in conversations(spec):
        prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"][: spec["max_length"]]
        rows.append((ids, len(tokenizer(prompt, add_special_tokens=False)["input_ids"])))
    steps, first = [], 0.0
    for step in range(spec["steps"]):
        began = time.monotonic()
        chosen = [rows[(step * spec["batch_size"] + i) % len(rows)] for i in range(spec["batch_size"])]
        longest = max(len(ids) for ids, _ in chosen)
        ids = torch.full((len(chosen), longest), tokenizer.pad_token_id or 0)
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
        steps.append({"seconds": time.monotonic() - began, "tokens": int(mask.sum()), "loss": value})
        first = first or time.monotonic() - BEGAN
    return {"steps": steps, "seconds_to_first_step": first}


def peak_memory() -> int:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    contender = spec["contender"]
    if contender == "ours":
        found = ours(spec)
    elif contender == "plain-padded":
        found = plain_padded(spec)
    else:
        found = trl(spec, tuned=contender == "trl-tuned")
    found["peak_memory_bytes"] = peak_memory()
    Path(spec["output"]).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
