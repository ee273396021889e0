"""The training loop, from a validated data set to an adapter and a report.

- Loss on the learned tokens only, divided by the learned tokens of the whole optimiser step (not per row or process).
- No padding: conversations are packed into rows and attend to themselves only.
- The order of data, and dropout, are functions of seed and step, so a continued run takes up where it stopped.
- Whatever ends the run before its last step (stop, signal, max_minutes, patience): checkpoint, adapter, report.
- Memory that runs out costs speed, not the run (`pressure`); several processes share a step (`parallel`).
- Cost of following along: one small file replaced a step, and one read of the loss per `log_every` steps.
"""

from __future__ import annotations

import gc
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ipytune import models
from ipytune.data.pack import Row, batch, pack, row_of
from ipytune.data.report import inspect
from ipytune.data.template import ChatTokenizer, Tokens
from ipytune.data.tokenizer import load_tokenizer, vocabulary_size
from ipytune.data.validate import Dataset
from ipytune.lora import checkpoint, pissa, samples
from ipytune.lora.config import RunConfig
from ipytune.lora.hardware import choose_device, choose_dtype, describe, peak_memory_bytes
from ipytune.lora.model import Trainable, load_base, with_adapter
from ipytune.lora.optimiser import adamw, set_rate
from ipytune.lora.parallel import Group, shard, shards, shares
from ipytune.lora.pressure import Footprint, OutOfMemory, is_out_of_memory
from ipytune.lora.quiet import quiet_libraries
from ipytune.lora.schedule import learning_rate, total_steps
from ipytune.processor import usable_cpus
from ipytune.runs.directory import CHECKPOINT_NOW, RunDirectory, curve, evaluations
from ipytune.runs.process import versions
from ipytune.runs.recorder import Recorder
from ipytune.runs.status import Phase

EVAL_EXAMPLES = 32  # enough to see overfitting; more would take a CPU as long as many training steps
RATE_MEMORY = 0.8  # of the moving average shown as tokens per second
COMPILE_AFTER = 10  # steps, when it is known how long the run is going to take
COMPILE_PAYS = 300.0  # seconds left from which on compiling the layers (about a minute) is worth it


def train(
    config: RunConfig,
    dataset: Dataset,
    directory: RunDirectory,
    recorder: Recorder,
    wants_end: Callable[[], str | None],
    group: Group | None = None,
) -> None:
    """Trains to the end, or until `wants_end` names a reason. Raises ModelNotFound, TemplateError, DatasetError
    (conversations over max_length) before training, FloatingPointError when the loss is no longer a number,
    OutOfMemory when not even the smallest step fits."""
    Training(config, dataset, directory, recorder, group or Group()).run(wants_end)


class Training:
    """One run in this process: `__init__` loads, `run` trains. The methods are its stages, in order."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, directory: RunDirectory, recorder: Recorder, group: Group
    ) -> None:
        self.launched = time.monotonic()
        self.config, self.directory, self.recorder, self.group = config, directory, recorder, group
        quiet_libraries()
        torch.set_num_threads(config.threads or max(1, usable_cpus() // local_processes()))
        torch.set_float32_matmul_precision("high")
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.dtype, self.device)

        source = models.resolve(config.model)
        self.tokenizer: ChatTokenizer = load_tokenizer(source)
        report = inspect(dataset, self.tokenizer, config, vocabulary_size(source)).checked()
        for warning in report.warnings:
            recorder.event("warning", text=str(warning))
        self.train_tokens, self.eval_tokens = report.train, report.held_out[:EVAL_EXAMPLES]
        self.sharded = group.size > 1 and shards(config, group.size, self.device, self.dtype)
        base = load_base(source, self.dtype, torch.device("cpu") if self.sharded else self.device, config.quantise)

        recorder.phase(Phase.CONFIGURING)
        self.model = with_adapter(base, config, str(source), pissa.load(directory.checkpoints))
        if self.sharded:
            shard(self.model.layers, self.model.parameters, self.device)
            self.model = self.model.on(self.device)
        self.optimizer = adamw(self.model.named_parameters, config)
        self.progress = checkpoint.Progress()
        if (found := checkpoint.latest(directory.checkpoints)) is not None:
            self.progress = checkpoint.restore(found, self.model, self.optimizer)
        elif self.model.start is not None and group.first:
            pissa.save(self.model.start, directory.checkpoints)
        if found is not None or curve(directory.read_events()[0]):  # without a checkpoint: every step once more
            recorder.event("resumed", step=self.progress.step)
        self.footprint = Footprint(config.row_tokens, "all" if config.gradient_checkpointing == "always" else "none")
        self.model.recompute(self.footprint.recompute)
        self.compiled = config.compile == "always"
        if self.compiled:
            self.model.compile()
        if not self.model.packs:
            text = "The model mixes tokens outside its attention: one conversation a row (slower)."
            recorder.event("warning", text=text)

        self.total = total_steps(len(self.train_tokens), config)
        events, _ = directory.read_events()  # of the processes that this one continues: a report is of the whole run
        earlier, judged = curve(events), evaluations(events)
        self.loss: float | None = earlier[-1]["loss"] if earlier else None
        self.first_loss: float | None = earlier[0]["loss"] if earlier else None
        self.eval_loss: float | None = judged[max(judged)] if judged else None
        self.to_first_step: float | None = None
        self.rate: float | None = None
        self.spent = 0.0  # seconds of training in this process

    # --- the run -----------------------------------------------------------------------------------------------------

    def run(self, wants_end: Callable[[], str | None]) -> None:
        config, progress = self.config, self.progress
        before, first_step = progress.training_seconds, progress.step
        limit = math.inf if config.max_minutes is None else 60 * config.max_minutes
        known = {"loss": self.loss, "eval_loss": self.eval_loss, "tokens": progress.tokens}
        self.recorder.phase(Phase.TRAINING, step=progress.step, total_steps=self.total, **known)
        ended_by = "steps"
        while progress.step < self.total:
            reason = wants_end() or ("max_minutes" if self.spent > limit else None) or self._patience_is_over()
            if (reason := self.group.first_that(reason)) is not None:
                ended_by = reason
                break
            started = time.monotonic()
            tokens, record = self._step()
            seconds = time.monotonic() - started
            self.spent += seconds
            progress.training_seconds = before + self.spent
            if self.to_first_step is None:
                self.to_first_step = time.monotonic() - self.launched  # not part of the rate: it also warms up
            else:
                now = tokens / seconds
                self.rate = now if self.rate is None else RATE_MEMORY * self.rate + (1 - RATE_MEMORY) * now
            left = (self.total - progress.step) * self.spent / (progress.step - first_step)
            self.recorder.step(
                progress.training_seconds,
                record,
                step=progress.step,
                tokens=progress.tokens,
                tokens_per_second=None if self.rate is None else round(self.rate, 1),
                loss=self.loss,
                learning_rate=learning_rate(progress.step - 1, self.total, config),
                progressPercentage=round(100 * progress.step / self.total, 1),
                estimatedRemainingSeconds=round(min(left, max(0.0, limit - self.spent)), 1),
                memory_bytes=self._peak(),
            )
            self._between_steps()
            if progress.step - first_step == COMPILE_AFTER:
                self._compile_if_it_pays(left)
        self._finish(ended_by)

    def _step(self) -> tuple[int, bool]:
        """One optimiser step; its tokens, and whether its loss was read."""
        config, progress = self.config, self.progress
        indices = batch(progress.step, len(self.train_tokens), config.batch_size, config.seed)
        examples = [self.train_tokens[i] for i in indices]
        set_rate(self.optimizer, learning_rate(progress.step, self.total, config))
        if config.lora.dropout:
            torch.manual_seed(hash((config.seed, progress.step, self.group.rank)))
        step_loss = self._accumulate(examples)
        torch.nn.utils.clip_grad_norm_(self.model.parameters, config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += (tokens := sum(map(len, examples)))
        record = progress.step % config.log_every == 0 or progress.step == self.total
        if record:  # reading the loss waits for a GPU: no more often than it is wanted
            self.loss = checked(float(step_loss), progress.step, config)
            self.first_loss = self.loss if self.first_loss is None else self.first_loss
        return tokens, record

    def _accumulate(self, examples: Sequence[Tokens]) -> torch.Tensor:
        """Gradients of the step's mean loss; the mean loss. Smaller rows, then recomputation, when memory runs out."""
        while True:
            failed = False
            try:
                loss = accumulate(self.model, self._rows(examples), learned_tokens(examples), self._passes(examples))
            except RuntimeError as error:
                if self.sharded or not is_out_of_memory(error):
                    raise
                failed = True
            # outside of the except: its traceback would hold on to the tensors of the failed pass
            if not self.group.any(failed):
                gradients = [p.grad for p in self.model.parameters if p.grad is not None]
                self.group.sum([*gradients, loss])
                return loss
            self._shrink(max(map(len, examples)))

    def _shrink(self, longest: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        smaller = self.footprint.smaller(longest, self.config.gradient_checkpointing != "never")
        if smaller is None:
            raise OutOfMemory(self.footprint)
        self.footprint = smaller
        self.model.recompute(smaller.recompute)
        self.recorder.event("warning", text=f"Memory ran out. The run goes on with {smaller.words()}.")

    def _rows(self, examples: Sequence[Tokens]) -> list[Row]:
        """This process's rows of a step."""
        rows = self._packed(examples)
        return shares(rows, [len(row.ids) for row in rows], self.group.size)[self.group.rank]

    def _packed(self, examples: Sequence[Tokens]) -> list[Row]:
        if not self.model.packs:
            return [row_of([tokens]) for tokens in examples]
        evenly = math.ceil(sum(map(len, examples)) / self.group.size)
        return pack(examples, max(max(map(len, examples)), min(self.footprint.row_tokens, evenly)))

    def _passes(self, examples: Sequence[Tokens]) -> int:
        """Passes that every process makes: with a sharded base all must make the same number."""
        rows = self._packed(examples) if self.sharded else []
        return max(map(len, shares(rows, [len(row.ids) for row in rows], self.group.size)), default=0)

    # --- between steps -----------------------------------------------------------------------------------------------

    def _between_steps(self) -> None:
        config, step = self.config, self.progress.step
        last = step == self.total

        def due(every: int | None) -> bool:
            every = config.checkpoint_every if every is None else every
            return every > 0 and step % every == 0 and not last

        asked = self.group.agreed(self.directory.asked(CHECKPOINT_NOW))
        save = due(None) or asked
        better = False
        if due(config.eval_every) or (asked and config.eval_every is None):
            better = self._evaluate()
        if self.group.first and config.sample_prompts and due(config.sample_every) and not self.sharded:
            self._sample()
        if save or (better and config.patience is not None):
            self._checkpoint()
        if asked and self.group.first:
            self.directory.done(CHECKPOINT_NOW)

    def _evaluate(self) -> bool:
        """The loss on the held-out conversations; whether it is the best so far."""
        if not self.eval_tokens:
            return False
        total, tokens = summed_losses(self.model, self._rows(self.eval_tokens), self._passes(self.eval_tokens))
        sums = torch.stack([total, torch.tensor(float(tokens), device=total.device)])
        self.group.sum([sums])
        self.eval_loss = float(sums[0] / sums[1])
        better = self.progress.judge(self.eval_loss, self.config.min_delta)
        self.recorder.update(eval_loss=self.eval_loss)
        self.recorder.event("evaluation", step=self.progress.step, eval_loss=self.eval_loss, best=better)
        return better

    def _peak(self) -> int:
        """Bytes: the highest of the run's processes in turn."""
        self.progress.peak_memory = max(self.progress.peak_memory, peak_memory_bytes(self.device))
        return self.progress.peak_memory

    def _patience_is_over(self) -> str | None:
        patience = self.config.patience
        return "patience" if patience is not None and self.progress.waited >= patience else None

    def _sample(self) -> None:
        config = self.config
        said = samples.answers(self.model, self.tokenizer, config.sample_prompts, config.sample_tokens)
        for prompt, answer in zip(config.sample_prompts, said, strict=True):
            self.recorder.event("sample", step=self.progress.step, prompt=prompt, answer=answer)

    def _checkpoint(self) -> None:
        if self.group.first:
            folder, best = self.directory.checkpoints, self.progress.best_step
            saved = checkpoint.save(folder, self.model, self.optimizer, self.progress)
            keep_best = best if self.config.patience is not None else None
            checkpoint.prune(folder, self.config.keep_checkpoints, keep_best)
            self.recorder.event("checkpoint", step=self.progress.step, path=saved.name)

    def _compile_if_it_pays(self, seconds_left: float) -> None:
        if not (self.config.compile == "auto" and self.device.type == "cuda" and seconds_left > COMPILE_PAYS):
            return
        if shutil.which(os.environ.get("CC", "cc")) is None:  # Triton builds its launcher with it
            self.recorder.event("warning", text="There is no C compiler here, so the decoder layers are not compiled.")
        else:
            self.model.compile()
            self.compiled = True
            text = "The decoder layers are compiled now: the next step takes longer, the others less."
            self.recorder.event("note", text=text)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, ended_by: str) -> None:
        self.recorder.phase(Phase.FINALIZING)
        if ended_by != "steps":  # the way back, before anything that takes time
            self._checkpoint()
        stopped = ended_by not in {"steps", "max_minutes", "patience"}
        if not stopped and ended_by != "patience":  # who asked for an end does not want to wait for a measurement
            self._evaluate()
        adapter_step = self._best_adapter()
        if self.group.first:
            write_adapter(self.model, self.directory.adapter)
            if self.config.sample_prompts and not stopped and not self.sharded:
                self._sample()
        phase = Phase.STOPPED if stopped else Phase.COMPLETED
        self.recorder.end(phase, self._report(ended_by, adapter_step))

    def _best_adapter(self) -> int:
        """With patience, the adapter of the best evaluation; the step whose adapter the model now holds."""
        progress, best = self.progress, self.progress.best_step
        if self.config.patience is None or best is None or best == progress.step:
            return progress.step
        directory = self.directory.checkpoints / f"step-{best}"
        if not checkpoint.is_whole(directory):
            return progress.step
        self.model.load(directory)
        return best

    def _report(self, ended_by: str, adapter_step: int) -> dict[str, Any]:
        progress = self.progress
        seconds = progress.training_seconds
        return {
            "ended_by": ended_by,
            "step": progress.step,
            "adapter_step": adapter_step,
            "total_steps": self.total,
            "tokens": progress.tokens,
            "loss": self.loss,
            "first_loss": self.first_loss,
            "eval_loss": self.eval_loss,
            "best_eval_loss": progress.best_loss,
            "training_seconds": round(seconds, 2),
            "seconds_to_first_step": None if self.to_first_step is None else round(self.to_first_step, 2),
            "tokens_per_second": round(progress.tokens / seconds, 1) if seconds else None,
            "peak_memory_bytes": self._peak(),
            "trainable_parameters": sum(parameter.numel() for parameter in self.model.parameters),
            "dtype": str(self.dtype).removeprefix("torch."),
            "packed": self.model.packs,
            "row_tokens": self.footprint.row_tokens,
            "recomputed_layers": self.footprint.recompute,
            "compiled": self.compiled,
            "processes": self.group.size,
            "examples": len(self.train_tokens),
            "finished_at": datetime.now(timezone.utc).isoformat(),
            "hardware": describe(self.device),
            "versions": versions(),
        }


# --- one step --------------------------------------------------------------------------------------------------------


def learned_tokens(examples: Sequence[Tokens]) -> int:
    """Tokens that count in the loss; the first token of a conversation is predicted from nothing and never does."""
    return sum(sum(tokens.learned[1:]) for tokens in examples)


def accumulate(model: Trainable, rows: Sequence[Row], learned: int, passes: int = 0) -> torch.Tensor:
    """Backward through all rows: gradients of (sum of losses / learned). Returns that quotient, float32 scalar, on the
    device. With fewer rows than `passes` the first one (or a token) goes through again, with weight zero."""
    total = torch.zeros((), device=model.device)
    for row in rows:
        loss = model.loss(row) / learned
        loss.backward()
        total += loss.detach()
    for _ in range(passes - len(rows)):
        (model.loss(rows[0] if rows else _EMPTY) * 0.0).backward()
    for parameter in model.parameters:
        if parameter.grad is None:  # this process had no row
            parameter.grad = torch.zeros_like(parameter)
    return total


_EMPTY = Row(ids=(0, 0), learned=(False, True), lengths=(2,))


@torch.no_grad()
def summed_losses(model: Trainable, rows: Sequence[Row], passes: int = 0) -> tuple[torch.Tensor, int]:
    """Sum of the losses over rows in nats, without dropout, and the number of learned tokens."""
    model.peft.eval()
    try:
        total = torch.zeros((), device=model.device)
        for row in rows:
            total += model.loss(row)
        for _ in range(passes - len(rows)):
            model.loss(_EMPTY)
    finally:
        model.peft.train()
    return total, sum(len(row.predictions) for row in rows)


def checked(loss: float, step: int, config: RunConfig) -> float:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss became {loss} at step {step}. Lower learning_rate (now {config.learning_rate:g}), or set "
            f"dtype: float32."
        )
    return loss


def local_processes() -> int:
    """Processes of this run on this machine, which share its cores."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def write_adapter(model: Trainable, adapter: Path) -> None:
    """Replaces the adapter as a whole: a reader finds the old one, the new one or, between two renames, none."""
    new, old = adapter.with_name(".adapter.new"), adapter.with_name(".adapter.old")
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    model.save_result(new)
    if adapter.exists():
        adapter.rename(old)  # never removed in place: a kill would leave half of it
    new.rename(adapter)
    shutil.rmtree(old, ignore_errors=True)
