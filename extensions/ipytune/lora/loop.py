"""The training loop, from a validated data set to an adapter and a report.

- Loss on the learned tokens only, divided by the learned tokens of the whole optimiser step (not per row).
- No padding: conversations are packed into rows and attend to themselves only.
- The order of data is a function of seed and step, so a continued run takes up where it stopped.
- Whatever ends the run before its last step (stop, signal, max_minutes): checkpoint, adapter, report.
- Cost of following along: one small file replaced a step, and one read of the loss per `log_every` steps.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

from ipytune import models
from ipytune.data.findings import DatasetError, Finding
from ipytune.data.pack import Row, batch, pack, row_of
from ipytune.data.read import Example
from ipytune.data.template import ChatTokenizer, Tokens, render
from ipytune.data.validate import Dataset
from ipytune.lora import checkpoint
from ipytune.lora.config import RunConfig
from ipytune.lora.hardware import choose_device, choose_dtype, describe, peak_memory_bytes, usable_cpus
from ipytune.lora.model import Trainable, load_base, load_tokenizer, with_adapter
from ipytune.lora.quiet import quiet_libraries
from ipytune.lora.schedule import learning_rate, total_steps
from ipytune.runs.directory import CHECKPOINT_NOW, RunDirectory
from ipytune.runs.process import versions
from ipytune.runs.recorder import Recorder
from ipytune.runs.status import Phase

EVAL_EXAMPLES = 32  # enough to see overfitting; more would take a CPU as long as many training steps
# Adam's usual 0.999 would let the large gradients of the first steps slow all steps of a run of some hundred.
BETAS = (0.9, 0.95)
RATE_MEMORY = 0.8  # of the moving average shown as tokens per second


def train(
    config: RunConfig,
    dataset: Dataset,
    directory: RunDirectory,
    recorder: Recorder,
    wants_end: Callable[[], str | None],
) -> None:
    """Trains to the end, or until `wants_end` names a reason. Raises ModelNotFound, TemplateError, DatasetError
    (conversations over max_length) before training, FloatingPointError when the loss is no longer a number."""
    launched = time.monotonic()
    quiet_libraries()
    torch.set_num_threads(config.threads or usable_cpus())
    torch.set_float32_matmul_precision("high")
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)

    source = models.resolve(config.model)
    tokenizer: ChatTokenizer = load_tokenizer(source)
    train_tokens = tokenise(tokenizer, dataset.train, config.train_file, config.max_length)
    eval_tokens: list[Tokens] = []
    if config.eval_file is not None:
        eval_tokens = tokenise(tokenizer, dataset.held_out[:EVAL_EXAMPLES], config.eval_file, config.max_length)
    base = load_base(source, dtype, device)

    recorder.phase(Phase.CONFIGURING)
    model = with_adapter(base, config.lora, config.seed, str(source))
    optimizer = torch.optim.AdamW(
        model.parameters, lr=config.learning_rate, betas=BETAS, weight_decay=config.weight_decay, fused=True
    )
    progress = checkpoint.Progress()
    if (found := checkpoint.latest(directory.checkpoints)) is not None:
        progress = checkpoint.restore(found, model, optimizer)
        recorder.event("resumed", step=progress.step)
    if not model.packs:
        recorder.event("warning", text="The model mixes tokens outside its attention: one conversation a row (slower).")

    def rows_of(examples: Sequence[Tokens]) -> list[Row]:
        return pack(examples, config.row_tokens) if model.packs else [row_of([tokens]) for tokens in examples]

    def evaluate() -> float | None:
        return mean_loss(model, rows_of(eval_tokens)) if eval_tokens else None

    total = total_steps(len(train_tokens), config)
    limit = math.inf if config.max_minutes is None else 60 * config.max_minutes
    seconds_before, first_step = progress.training_seconds, progress.step
    loss, first_loss, eval_loss, rate = None, None, None, None
    spent, to_first_step, ended_by = 0.0, None, "steps"
    recorder.phase(Phase.TRAINING, step=progress.step, total_steps=total, tokens=progress.tokens)

    while progress.step < total:
        if (reason := wants_end() or ("max_minutes" if spent > limit else None)) is not None:
            ended_by = reason
            break
        step_started = time.monotonic()
        examples = [train_tokens[i] for i in batch(progress.step, len(train_tokens), config.batch_size, config.seed)]
        step_rate = learning_rate(progress.step, total, config)
        step_loss = step_once(model, optimizer, rows_of(examples), step_rate, config.max_grad_norm)
        progress.step += 1
        progress.tokens += (tokens := sum(map(len, examples)))

        record = progress.step % config.log_every == 0 or progress.step == total
        if record:  # reading the loss waits for a GPU: no more often than it is wanted
            loss = checked(float(step_loss), progress.step, config)
            first_loss = loss if first_loss is None else first_loss
        seconds = time.monotonic() - step_started
        spent += seconds
        progress.training_seconds = seconds_before + spent
        if to_first_step is None:
            to_first_step = time.monotonic() - launched  # not part of the rate: it also allocates and warms up
        else:
            rate = tokens / seconds if rate is None else RATE_MEMORY * rate + (1 - RATE_MEMORY) * tokens / seconds
        left = (total - progress.step) * spent / (progress.step - first_step)
        recorder.step(
            progress.training_seconds,
            record,
            step=progress.step,
            tokens=progress.tokens,
            tokens_per_second=None if rate is None else round(rate, 1),
            loss=loss,
            learning_rate=step_rate,
            progressPercentage=round(100 * progress.step / total, 1),
            estimatedRemainingSeconds=round(min(left, max(0.0, limit - spent)), 1),
            memory_bytes=peak_memory_bytes(device),
        )
        due = config.checkpoint_every > 0 and progress.step % config.checkpoint_every == 0 and progress.step < total
        if due or directory.asked(CHECKPOINT_NOW):
            directory.done(CHECKPOINT_NOW)
            eval_loss = evaluate()
            recorder.update(eval_loss=eval_loss)
            saved = checkpoint.save(directory.checkpoints, model, optimizer, progress)
            checkpoint.prune(directory.checkpoints, config.keep_checkpoints)
            recorder.event("checkpoint", step=progress.step, path=saved.name, eval_loss=eval_loss)

    recorder.phase(Phase.FINALIZING)
    if ended_by != "steps":  # the way back, before anything that takes time
        saved = checkpoint.save(directory.checkpoints, model, optimizer, progress)
        checkpoint.prune(directory.checkpoints, config.keep_checkpoints)
        recorder.event("checkpoint", step=progress.step, path=saved.name)
    write_adapter(model, directory.adapter)
    stopped = ended_by not in {"steps", "max_minutes"}
    if not stopped:  # who asked for an end does not want to wait for a measurement
        eval_loss = evaluate()
        recorder.update(eval_loss=eval_loss)
    recorder.end(
        Phase.STOPPED if stopped else Phase.COMPLETED,
        {
            "ended_by": ended_by,
            "step": progress.step,
            "total_steps": total,
            "tokens": progress.tokens,
            "loss": loss,
            "first_loss": first_loss,
            "eval_loss": eval_loss,
            "training_seconds": round(progress.training_seconds, 2),
            "seconds_to_first_step": None if to_first_step is None else round(to_first_step, 2),
            "tokens_per_second": round(progress.tokens / progress.training_seconds, 1)
            if progress.training_seconds
            else None,
            "peak_memory_bytes": peak_memory_bytes(device),
            "trainable_parameters": sum(parameter.numel() for parameter in model.parameters),
            "dtype": str(dtype).removeprefix("torch."),
            "packed": model.packs,
            "examples": len(train_tokens),
            "finished_at": datetime.now(timezone.utc).isoformat(),
            "hardware": describe(device),
            "versions": versions(),
        },
    )


def step_once(
    model: Trainable, optimizer: torch.optim.Optimizer, rows: Sequence[Row], rate: float, max_grad_norm: float
) -> torch.Tensor:
    """One optimiser step over `rows`; returns the mean loss per learned token, float32 scalar, on the device."""
    learned = sum(len(row.predictions) for row in rows)
    for group in optimizer.param_groups:
        group["lr"] = rate
    total = torch.zeros((), device=model.device)
    for row in rows:
        loss = model.loss(row) / learned
        loss.backward()
        total += loss.detach()
    torch.nn.utils.clip_grad_norm_(model.parameters, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


@torch.no_grad()
def mean_loss(model: Trainable, rows: Sequence[Row]) -> float:
    """Mean loss per learned token over rows, in nats, without dropout."""
    model.peft.eval()
    try:
        total = sum(float(model.loss(row)) for row in rows)
    finally:
        model.peft.train()
    return total / sum(len(row.predictions) for row in rows)


def tokenise(tokenizer: ChatTokenizer, examples: Sequence[Example], file: Path, max_length: int) -> list[Tokens]:
    """The examples as tokens; raises DatasetError for those over max_length, TemplateError."""
    tokens = [render(tokenizer, example.as_dicts()) for example in examples]
    findings = [
        Finding(
            file,
            example.line,
            f"{len(rendered)} tokens, over max_length {max_length}",
            "Raise max_length (and row_tokens), or shorten the conversation",
        )
        for example, rendered in zip(examples, tokens, strict=True)
        if len(rendered) > max_length
    ]
    if findings:
        raise DatasetError(findings)
    return tokens


def checked(loss: float, step: int, config: RunConfig) -> float:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss became {loss} at step {step}. Lower learning_rate (now {config.learning_rate:g}), or set "
            f"dtype: float32."
        )
    return loss


def write_adapter(model: Trainable, adapter: Path) -> None:
    """Replaces the adapter as a whole: a reader finds the old one or the new one."""
    aside = adapter.with_name(f".adapter.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    model.save(aside)
    shutil.rmtree(adapter, ignore_errors=True)
    aside.rename(adapter)
