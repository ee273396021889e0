"""Run directories as the training process writes them, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipytune.lora.config import RunConfig
from ipytune.runs.directory import RunDirectory
from ipytune.runs.status import Phase, Status


def run_in(path: Path, steps: int = 3, phase: Phase = Phase.COMPLETED, day: int = 1, **settings: Any) -> RunDirectory:
    """A run of `steps` steps that began on that day of a month: loss 4/step, held-out loss 5/step at even steps."""
    directory = RunDirectory(path)
    train_file = settings.pop("train_file", path.parent / "train.jsonl")
    directory.create(RunConfig(train_file=train_file, **settings).as_yaml())
    directory.append_event("phase", phase="loading_dataset", time=f"2026-11-{day:02}T08:00:00+00:00")
    for step in range(1, steps + 1):
        directory.append_event(
            "metric", step=step, loss=4.0 / step, tokens=100 * step, elapsed_seconds=0.5 * step, tokens_per_second=200.0
        )
        if step % 2 == 0:
            directory.append_event("evaluation", step=step, eval_loss=5.0 / step, best=True)
    directory.write_report(
        {"step": steps, "training_seconds": 0.5 * steps, "tokens_per_second": 200.0, "peak_memory_bytes": 3_000_000}
    )
    directory.write_status(
        Status(phase=phase, step=steps, total_steps=steps, loss=4.0 / steps, eval_loss=5.0 / steps, tokens=100 * steps)
    )
    directory.adapter.mkdir()
    (directory.adapter / "adapter_model.safetensors").write_bytes(b"0" * 1000)
    (directory.adapter / "adapter_config.json").write_text("{}")
    return directory
