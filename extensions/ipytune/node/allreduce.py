"""How fast processes sum an array together (all-reduce), by size: the step that several GPUs share in training.

    torchrun --nproc-per-node=4 -m ipytune.node.allreduce --megabytes 8000 --out allreduce.json
    srun torchrun --nnodes=2 ... -m ipytune.node.allreduce ...

NCCL on GPUs, gloo on CPUs, nothing else differs. Each size is checked (the sum must be right), warmed up, then timed
from a barrier until the slowest process is done; the median of the repeats counts. The first process writes `--out`.
`measure` runs it from a notebook, on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ipytune import openmp
from ipytune.node.thresholds import Verdict, bus_bandwidth, judge
from ipytune.runs.directory import replace_text
from ipytune.runs.launch.ranks import without_ranks


class AllReduceFailed(RuntimeError):
    """Processes that did not come to an end; the message holds the last lines that they printed."""


@dataclass(frozen=True)
class AllReduce:
    """One size. seconds: the median of `repeats`; gb_per_second: the bus bandwidth (`thresholds`)."""

    bytes: int
    seconds: float
    repeats: int
    gb_per_second: float


@dataclass(frozen=True)
class Measured:
    """All sizes of one call, and who took part."""

    backend: str
    processes: int
    nodes: int
    sizes: tuple[AllReduce, ...]

    @property
    def largest(self) -> AllReduce:
        return max(self.sizes, key=lambda size: size.bytes)

    def verdict(self) -> Verdict:
        """Of the largest size, by the vetting limit for such a set of processes."""
        largest = self.largest
        return judge(largest.gb_per_second, largest.bytes, self.processes, self.nodes, self.backend)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, written: dict[str, Any]) -> Measured:
        return cls(**{**written, "sizes": tuple(AllReduce(**size) for size in written["sizes"])})


def measure(processes: int, megabytes: Sequence[float], repeats: int = 5, timeout: float = 300.0) -> Measured:
    """Runs it on this machine: a process a GPU, or with gloo on the cores. Raises AllReduceFailed, ValueError."""
    if processes < 2:
        raise ValueError(f"processes is {processes}: an all-reduce needs at least 2.")
    with TemporaryDirectory() as folder:
        out = Path(folder) / "allreduce.json"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
            *("--max-restarts=0", "-m", "ipytune.node.allreduce", "--repeats", str(repeats), "--out", str(out)),
            *("--megabytes", *map(str, megabytes)),
        ]
        environment = without_ranks(os.environ)
        openmp.spin_briefly(environment)
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise AllReduceFailed(f"{processes} processes did not end within {timeout:g} s.") from error
        if done.returncode or not out.is_file():
            said = "\n".join(own_words(done.stdout.splitlines())[-15:])
            raise AllReduceFailed(f"{processes} processes ended with status {done.returncode}:\n{said}")
        return Measured.of(json.loads(out.read_text(encoding="utf-8")))


def own_words(lines: Sequence[str]) -> list[str]:
    """What the processes printed, without torchrun's report that one of them failed, which follows it. Pure."""
    theirs = next((number for number, line in enumerate(lines) if "torch/distributed/elastic" in line), len(lines))
    report = next((number for number, line in enumerate(lines) if re.match(r"E\d{4} .*failed", line)), len(lines))
    return list(lines[: min(theirs, report)]) or list(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ipytune.node.allreduce")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[8000.0], help="10**6 bytes each; sizes in turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON; without it the result is printed")
    chosen = parser.parse_args(arguments)
    if min(chosen.megabytes) <= 0 or chosen.repeats < 1:
        parser.error("sizes are over 0, repeats at least 1")
    found = _take_part([int(size * 10**6) for size in chosen.megabytes], chosen.repeats)
    if found is not None:
        text = json.dumps(found.as_dict(), indent=1)
        if chosen.out is None:
            print(text)
        else:
            replace_text(chosen.out, text)
    return 0


def _take_part(sizes: Sequence[int], repeats: int) -> Measured | None:
    """One of the processes; the result in the first one, None in the others."""
    import torch
    import torch.distributed as dist

    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local, here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", str(processes)))
    nodes = processes // here
    gpu = torch.cuda.device_count() >= here  # all or none: with fewer GPUs some would wait for others for ever
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    found = []
    try:
        for size in sizes:
            values = torch.full((max(1, size // 4),), float(rank + 1), device=device)
            dist.all_reduce(values)
            if float(values[0]) != (wanted := processes * (processes + 1) / 2) or float(values[-1]) != wanted:
                raise RuntimeError(f"The sum was {float(values[-1])}, not {wanted}: do not trust this machine.")
            values.zero_()  # sums of sums would overflow
            seconds = [_once(values) for _ in range(1 + repeats)][1:]
            median = statistics.median(seconds)
            given = 4 * values.numel()
            found.append(AllReduce(given, median, repeats, bus_bandwidth(given, median, processes)))
    finally:
        dist.destroy_process_group()
    return Measured("nccl" if gpu else "gloo", processes, nodes, tuple(found)) if rank == 0 else None


def _once(values: Any) -> float:
    """Seconds from a barrier until the slowest is done, the same in all."""
    import torch
    import torch.distributed as dist

    gpu = values.device.type == "cuda"
    dist.barrier()
    if gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    dist.all_reduce(values)
    if gpu:
        torch.cuda.synchronize()
    took = torch.tensor([time.perf_counter() - started], dtype=torch.float64, device=values.device)
    dist.all_reduce(took, op=dist.ReduceOp.MAX)
    return max(float(took), 1e-9)


if __name__ == "__main__":
    sys.exit(main())
