"""What memory this session really has: every limit that applies, and the one that binds. Without torch.

Host: limits of all control groups above this process (versions 1 and 2), the Slurm job's, and what the machine has
free. GPUs: those that CUDA_VISIBLE_DEVICES leaves, as nvidia-smi tells them; a slice of a GPU (MIG) by its profile.

On Grace Hopper the GPU's memory is also a memory node of the host, so the page cache of files that were read can occupy
it, which drivers before 570 do not give back for an allocation: it is counted as used and named.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipytune.lora.config import RunConfig
from ipytune.memory.estimate import Device, Dtype

UNLIMITED = 2**60  # version 1 writes a number near 2**63 for no limit
_QUERY = "--query-gpu=index,uuid,name,memory.total,memory.free"
_MIG = re.compile(r"MIG\s+\S*?\.(?P<gb>\d+)gb\S*\s+Device\s+\d+:\s+\(UUID:\s+(?P<uuid>MIG-[^)]+)\)")
_GPU = re.compile(r"GPU\s+(?P<index>\d+):.*\(UUID:\s+(?P<uuid>GPU-[^)]+)\)")


@dataclass(frozen=True)
class Limit:
    """Memory that something grants: bytes in total, and of these in use."""

    name: str
    total: int
    used: int = 0

    @property
    def free(self) -> int:
        return max(0, self.total - self.used)


@dataclass(frozen=True)
class Available:
    """All limits that apply to this session; `gpus` in CUDA's order."""

    host: tuple[Limit, ...]
    gpus: tuple[Limit, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def host_limit(self) -> Limit:
        """The one that leaves least."""
        return min(self.host, key=lambda limit: limit.free)

    def gpu_limit(self, processes: int = 1) -> Limit | None:
        """Of the GPUs that so many processes use, the one with least free; None when there are not as many."""
        if len(self.gpus) < processes:
            return None
        return min(self.gpus[:processes], key=lambda limit: limit.free)


@dataclass(frozen=True)
class Card:
    """A GPU as nvidia-smi lists it; sizes in bytes, None where it does not tell."""

    index: str
    uuid: str
    name: str
    total: int | None
    free: int | None


def available(
    environment: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
    ask: Callable[[Sequence[str]], str | None] | None = None,
) -> Available:
    """Reads it now. root: where /proc and /sys are; ask: runs nvidia-smi with arguments, None when it cannot."""
    ask = nvidia_smi if ask is None else ask
    answer = ask([_QUERY, "--format=csv,noheader,nounits"])
    notes: list[str] = []
    gpus: tuple[Limit, ...] = ()
    if answer is not None:
        cards = parse_cards(answer)
        slices = parse_slices(ask(["-L"]) or "")
        gpus = visible_gpus(cards, slices, environment.get("CUDA_VISIBLE_DEVICES"))
        notes += [f"{card.name} does not tell its memory." for card in cards if card.total is None]
    free_on_gpu_nodes, cached_on_gpu_nodes = _memory_only_nodes(root) if gpus else (0, 0)
    if cached_on_gpu_nodes > 2**30:
        notes.append(
            f"The page cache holds {cached_on_gpu_nodes / 2**30:.1f} GiB of GPU memory (Grace Hopper). Drivers before "
            f"570 do not give it back: ask the site to drop the caches, or read files with less caching."
        )
    own = _resident(root)
    host = [*cgroup_limits(root), *slurm_limit(environment, own)]
    if (machine := machine_limit(root, free_on_gpu_nodes + cached_on_gpu_nodes)) is not None:
        host.append(machine)
    return Available(tuple(host) or (Limit("unknown: no /proc here", UNLIMITED),), gpus, tuple(notes))


def choose(config: RunConfig, has_gpu: bool, bfloat16_pays: bool) -> tuple[Device, Dtype]:
    """Device and dtype that the training process will choose (`lora.hardware`, which asks torch)."""
    device: Device = "cuda" if config.device == "cuda" or (config.device == "auto" and has_gpu) else "cpu"
    if config.dtype != "auto":
        return device, config.dtype
    return device, "bfloat16" if device == "cuda" or bfloat16_pays else "float32"


# --- host ------------------------------------------------------------------------------------------------------------


def machine_limit(root: Path, elsewhere: int = 0) -> Limit | None:
    """MemAvailable: free, and page cache that can be given back. elsewhere: bytes of it that lie on GPUs."""
    sizes = _sizes(_text(root / "proc/meminfo"))
    if "MemTotal" not in sizes or "MemAvailable" not in sizes:
        return None
    total = sizes["MemTotal"]
    return Limit("free memory of the machine", total, total - max(0, sizes["MemAvailable"] - elsewhere))


def cgroup_limits(root: Path) -> list[Limit]:
    """Limits of the control groups of this process, from its own upwards. Page cache that is not in use counts as
    free: the kernel takes it back first."""
    limits = []
    for folder, version in _cgroup_folders(root):
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
        set_to = [number for name in names if (number := _number(folder / name)) is not None and number < UNLIMITED]
        if not set_to:
            continue
        used = _number(folder / ("memory.current" if version == 2 else "memory.usage_in_bytes")) or 0
        key = "inactive_file" if version == 2 else "total_inactive_file"
        found = re.search(rf"^{key} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
        cached = int(found[1]) if found else 0
        limits.append(Limit("memory limit of the session (cgroup)", min(set_to), max(0, used - cached)))
    return limits


def _cgroup_folders(root: Path) -> Iterator[tuple[Path, int]]:
    """Folders of this process's memory control groups, innermost first, and the version of each."""
    own: dict[int, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            own[2] = path
        elif "memory" in controllers.split(","):
            own[1] = path
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        mounted, point = left.split()[3:5]
        kind, _, options = (right.split() + ["", "", ""])[:3]
        version = 2 if kind == "cgroup2" else 1 if kind == "cgroup" and "memory" in options.split(",") else 0
        if version not in own:
            continue
        top = root / point.lstrip("/")
        inside = own[version]
        if mounted != "/" and (inside + "/").startswith(mounted.rstrip("/") + "/"):
            inside = inside[len(mounted.rstrip("/")) :]
        folder = top / inside.strip("/")
        if ".." in inside or not folder.is_dir():  # a container that sees its group as the top
            folder = top
        yield folder, version
        for parent in folder.parents if folder != top else ():
            yield parent, version
            if parent == top:
                break


def slurm_limit(environment: Mapping[str, str], used: int) -> list[Limit]:
    """What the job was given on this node (MB in Slurm's variables; 0 means all); used: bytes of this process, since
    who else runs in the job is not told. Empty outside of a job."""
    if "SLURM_JOB_ID" not in environment:
        return []

    def number(name: str) -> int:
        text = environment.get(name, "")
        return int(text) if text.isdecimal() else 0

    megabytes = (
        number("SLURM_MEM_PER_NODE")
        or number("SLURM_MEM_PER_CPU") * number("SLURM_CPUS_ON_NODE")
        or number("SLURM_MEM_PER_GPU") * number("SLURM_GPUS_ON_NODE")
    )
    return [Limit("memory of the Slurm job", megabytes * 2**20, used)] if megabytes else []


def _memory_only_nodes(root: Path) -> tuple[int, int]:
    """Bytes free, and bytes of page cache, on memory nodes without processors: a Grace Hopper's GPUs."""
    free = cached = 0
    for node in sorted((root / "sys/devices/system/node").glob("node[0-9]*")):
        if _text(node / "cpulist").strip():
            continue
        sizes = _sizes(re.sub(r"^Node \d+ ", "", _text(node / "meminfo"), flags=re.MULTILINE))
        free += sizes.get("MemFree", 0)
        cached += sizes.get("FilePages", 0)
    return free, cached


def _resident(root: Path) -> int:
    return _sizes(_text(root / "proc/self/status")).get("VmRSS", 0)


def _sizes(text: str) -> dict[str, int]:
    """`Name:  123 kB` lines as bytes."""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


# --- GPUs ------------------------------------------------------------------------------------------------------------


def parse_cards(csv: str) -> list[Card]:
    """nvidia-smi's answer to _QUERY: MiB, or words in brackets where it does not know."""
    cards = []
    for line in csv.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) >= 5:
            total, free = (int(size) * 2**20 if size.isdecimal() else None for size in fields[-2:])
            cards.append(Card(fields[0], fields[1], ", ".join(fields[2:-2]), total, free))
    return cards


def parse_slices(listing: str) -> dict[str, list[Card]]:
    """`nvidia-smi -L`: the slices (MIG) of each GPU, by the GPU's UUID. Their size is in the profile's name, in GB."""
    slices: dict[str, list[Card]] = {}
    current = ""
    for line in listing.splitlines():
        if (gpu := _GPU.search(line)) is not None:
            current = gpu["uuid"]
        elif (found := _MIG.search(line)) is not None:
            size = int(found["gb"]) * 10**9
            slices.setdefault(current, []).append(Card("", found["uuid"], f"a slice of {found['gb']} GB", size, size))
    return slices


def visible_gpus(cards: Sequence[Card], slices: Mapping[str, list[Card]], visible: str | None) -> tuple[Limit, ...]:
    """Those that CUDA will show: CUDA_VISIBLE_DEVICES names them by number or by the beginning of a UUID, up to the
    first that does not exist. Of GPUs that are cut in slices CUDA shows one slice only."""
    every_slice = [card for parts in slices.values() for card in parts]
    if visible is None:
        chosen = every_slice[:1] or list(cards)
    else:
        chosen = []
        for wanted in (part.strip() for part in visible.split(",")):
            by_number = [card for card in cards if card.index == wanted]
            by_uuid = [card for card in [*cards, *every_slice] if wanted and card.uuid.startswith(wanted)]
            found = next(iter(by_number or by_uuid), None)
            if found is None or found in chosen:
                break
            chosen.append(next(iter(slices.get(found.uuid, ())), found))
    return tuple(
        Limit(f"GPU {number} ({card.name})", card.total, max(0, card.total - (card.free or 0)))
        for number, card in enumerate(chosen)
        if card.total is not None
    )


def nvidia_smi(arguments: Sequence[str]) -> str | None:
    """Its answer; None where there is no such program, or it failed."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        answer = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout


# --- files -----------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """The number in a file; None for `max`, or where there is no such file."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None
