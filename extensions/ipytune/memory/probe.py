"""One real step at the real token budget, in a process of its own: what it needs, measured.

    python -m ipytune.memory.probe CONFIG.yaml      (a JSON line at the end of its output)

The longest conversations fill one row of row_tokens; the optimiser's state and whole gradients are there before it, as
in any later step. Running out of memory is an answer, not a crash: the probe may take what this session has free and no
more, so it ends itself before the kernel ends anything else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ipytune import heap, openmp
from ipytune.lora.config import RunConfig
from ipytune.memory.available import available
from ipytune.memory.peak import peak_resident

SPARE = 0.95  # of what is free on the host: the rest is for who else lives there
LOG_LINES = 8
ROWS = 3  # of the step, on a CPU: what freed tensors leave of the heap fits the next row's only in part


class ProbeFailed(RuntimeError):
    """A probe that ended in an error other than too little memory; the message says why."""


@dataclass(frozen=True)
class Probe:
    """What one step needed, in bytes. When it did not fit, `peak` is what it had when it ended: it needs more."""

    fits: bool
    device: str
    dtype: str
    peak: int
    """Tensors on the GPU (max_memory_allocated); on a CPU the peak resident set, loading included."""
    reserved: int
    """What the process took: of the GPU (max_memory_reserved), or `peak` again."""
    loading: int
    """Peak resident set of the host after loading, before the step."""
    row: int
    """Tokens of the row."""
    learned: int
    longest: int
    seconds: float

    def __str__(self) -> str:
        if not self.fits:
            return f"does not fit: needs more than {self.peak / 2**30:.2f} GiB for a row of {self.row} tokens"
        return f"{self.peak / 2**30:.2f} GiB for a row of {self.row} tokens, {self.seconds:.1f} s"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def probe(config: RunConfig, timeout: float = 900.0) -> Probe:
    """Measures in a process of its own. Raises ConfigError for a missing file, ProbeFailed, TimeoutError."""
    pinned = config.pinned()
    limit = available().host_limit
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    openmp.spin_briefly(environment)
    heap.use_large_pages(environment)
    with tempfile.TemporaryDirectory(prefix="ipytune-probe-") as folder:
        path, log = Path(folder) / "config.yaml", Path(folder) / "log"
        pinned.to_yaml(path)
        with log.open("wb") as stream:
            child = subprocess.Popen(
                [sys.executable, "-m", "ipytune.memory.probe", str(path), str(int(limit.free * SPARE))],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"The probe took longer than {timeout:g} s and was ended. Lower row_tokens, or raise the time-out."
            ) from None
        finally:  # a Ctrl-C too: it does not reach a process of another session
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        return answer(code, log.read_text(encoding="utf-8", errors="replace"), limit.free)


def answer(code: int, output: str, free: int) -> Probe:
    """The result of a probe that ended with `code` after it printed `output`; raises ProbeFailed. Pure.

    Ended by SIGKILL it ran out of memory in the kernel's way: then it needs more than the `free` bytes there were.
    """
    lines = output.splitlines()
    for line in reversed(lines):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if "error" in found:
                raise ProbeFailed(f"The probe failed: {found['error']}")
            return Probe(**found)
    if code == -signal.SIGKILL:
        return Probe(False, "cpu", "", free, free, free, 0, 0, 0, 0.0)
    tail = "\n".join(lines[-LOG_LINES:])
    raise ProbeFailed(f"The probe ended with exit code {code} and no result. It last printed:\n{tail}")


# --- in the process of its own ---------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    if len(arguments) not in (1, 2):
        print("usage: python -m ipytune.memory.probe CONFIG.yaml [HOST_BYTES]", file=sys.stderr)
        return 2
    openmp.spin_briefly()
    _die_first()
    try:
        host_bytes = int(arguments[1]) if len(arguments) == 2 else None
        found = Step(RunConfig.from_yaml(arguments[0]), host_bytes).measured().as_dict()
    except Exception as error:  # the edge of the process: the parent tells the user
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    print(json.dumps(found))
    return 0


class Step:
    """The loop's own pieces, once: load, adapter, optimiser, one row (three on a CPU) forward and backward, one update.

    host_bytes: on a CPU the most that this process may take from then on; None: no limit.
    """

    def __init__(self, config: RunConfig, host_bytes: int | None = None) -> None:
        import time

        import torch

        from ipytune import models
        from ipytune.data.pack import pack, row_of
        from ipytune.data.report import inspect
        from ipytune.data.tokenizer import load_tokenizer
        from ipytune.data.validate import load
        from ipytune.lora.hardware import choose_device, choose_dtype
        from ipytune.lora.loop import learned_tokens
        from ipytune.lora.quiet import quiet_libraries
        from ipytune.processor import usable_cpus

        quiet_libraries()
        self.config, self.started = config, time.monotonic()
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.dtype, self.device)
        torch.set_num_threads(config.threads or usable_cpus())
        torch.set_float32_matmul_precision("high")
        source = models.resolve(config.model)
        tokenizer: Any = load_tokenizer(source)
        tokens = inspect(load(config), tokenizer, config).checked().train
        longest = sorted(tokens, key=len, reverse=True)[: config.batch_size]
        self.source, self.longest = source, len(longest[0])
        self.row = max(pack(longest, config.row_tokens), key=lambda row: (len(row.ids), len(row.predictions)))
        self.alone = row_of(longest[:1])
        self.learned = learned_tokens(longest)
        self.loading = 0
        if self.device.type == "cpu" and host_bytes is not None:  # CUDA maps far more than it uses
            _take_at_most(host_bytes)

    def measured(self) -> Probe:
        from ipytune.lora.pressure import is_out_of_memory

        try:
            self._load()
            self._step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return self._result(fits=False)
        return self._result(fits=True)

    def _load(self) -> None:
        from ipytune.lora.model import load_base, with_adapter
        from ipytune.lora.optimiser import adamw

        base = load_base(self.source, self.dtype, self.device, self.config.quantise)
        self.model = with_adapter(base, self.config, str(self.source))
        self.model.recompute("all" if self.config.gradient_checkpointing == "always" else "none")
        self.optimizer = adamw(self.model.named_parameters, self.config)
        if not self.model.packs:
            self.row = self.alone
        self.loading = peak_resident()

    def _step(self) -> None:
        import torch

        for parameter in self.model.parameters:  # Adam's state, and the gradients of an earlier row of the same step
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        for _ in range(1 if self.device.type == "cuda" else ROWS):
            (self.model.loss(self.row) / max(1, self.learned)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _result(self, fits: bool) -> Probe:
        import time

        import torch

        peak = reserved = peak_resident()
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            reserved = torch.cuda.max_memory_reserved(self.device)
        return Probe(
            fits=fits,
            device=self.device.type,
            dtype=str(self.dtype).removeprefix("torch."),
            peak=peak,
            reserved=reserved,
            loading=self.loading or peak_resident(),
            row=len(self.row.ids),
            learned=len(self.row.predictions),
            longest=self.longest,
            seconds=round(time.monotonic() - self.started, 2),
        )


def _take_at_most(count: int) -> None:
    """Memory beyond that is refused to this process (RLIMIT_DATA): torch then raises, and nobody is killed."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (count, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))


def _die_first() -> None:
    """If memory does run out for all, the kernel ends the probe before the notebook."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
