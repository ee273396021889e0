"""How fast memory is: STREAM's copy and triad on tensors, on a CPU or a GPU, and copies between the two.

- The best of several passes counts, as in STREAM: what a machine can do, not what it did beside other work.
- Bytes are those that the program names: copy 2, triad 3 a value. A CPU that reads a line before it writes one moves
  more than that, so its real traffic is up to half as much again.
- 10**9 bytes are a GB here, as vendors count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch

Kernel = Literal["copy", "triad", "to the GPU", "from the GPU"]


@dataclass(frozen=True)
class Bandwidth:
    """One kernel over arrays of `bytes` bytes each."""

    kernel: Kernel
    device: str
    bytes: int
    seconds: float
    gb_per_second: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def stream(device: str | torch.device = "cpu", array_bytes: int = 256 * 2**20, passes: int = 7) -> list[Bandwidth]:
    """copy (a = b) and triad (a = b + s*c) on float32 arrays of `array_bytes` each; takes three of them in memory."""
    device, count = torch.device(device), array_bytes // 4
    if count < 1 or passes < 1:
        raise ValueError(f"array_bytes {array_bytes}, passes {passes}: at least 4 and 1 are needed.")
    a, b, c = (torch.full((count,), value, device=device) for value in (0.0, 1.0, 2.0))
    found = [
        _measured("copy", device, lambda: a.copy_(b), 2, 4 * count, passes),
        _measured("triad", device, lambda: torch.add(b, c, alpha=3.0, out=a), 3, 4 * count, passes),
    ]
    if float(a[0]) != 7.0 or float(a[-1]) != 7.0:
        raise RuntimeError(f"The triad on {device} computed {float(a[-1])}, not 7: do not trust this device.")
    return found


def across(gpu: str | torch.device = "cuda", array_bytes: int = 2**30, passes: int = 7) -> list[Bandwidth]:
    """Copies of pinned host memory to a GPU and back."""
    device, count = torch.device(gpu), array_bytes // 4
    here = torch.ones(count, pin_memory=True)
    there = torch.empty(count, device=device)
    return [
        _measured("to the GPU", device, lambda: there.copy_(here, non_blocking=True), 1, 4 * count, passes),
        _measured("from the GPU", device, lambda: here.copy_(there, non_blocking=True), 1, 4 * count, passes),
    ]


def by_size(
    sizes: Sequence[int], device: str | torch.device = "cpu", seconds: float = 0.15, passes: int = 3
) -> list[Bandwidth]:
    """Triad over arrays of each size in turn: steps down where three arrays no longer fit a cache. On a CPU with one
    thread: caches are a core's own. Each pass repeats the kernel until `seconds` are over or 1,000 times, since one
    round through a cache is too short to time."""
    device, threads = torch.device(device), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_triad(size, device, seconds, passes) for size in sizes]
    finally:
        torch.set_num_threads(threads)


def _triad(size: int, device: torch.device, seconds: float, passes: int) -> Bandwidth:
    count = max(1, size // 4)
    a, b, c = (torch.full((count,), value, device=device) for value in (0.0, 1.0, 2.0))

    def once() -> object:
        return torch.add(b, c, alpha=3.0, out=a)

    _time(once, device)
    repeats = max(1, min(1000, int(seconds / passes / _time(once, device))))
    return _measured("triad", device, once, 3, 4 * count, passes, repeats)


def _measured(
    kernel: Kernel,
    device: torch.device,
    once: Callable[[], object],
    arrays: int,
    array_bytes: int,
    passes: int,
    repeats: int = 1,
) -> Bandwidth:
    def run() -> None:
        for _ in range(repeats):
            once()

    _time(run, device)  # touches the pages, wakes the clocks
    best = min(_time(run, device) for _ in range(passes)) / repeats
    return Bandwidth(kernel, str(device), array_bytes, best, arrays * array_bytes / best / 10**9)


def _time(run: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    run()
    _finish(device)
    return max(time.perf_counter() - started, 1e-9)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
