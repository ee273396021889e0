"""What a node consists of, from what the kernel and nvidia-smi print: cores, memory nodes, GPUs, how they are joined.

Pure but for `read`. What is not told is None or empty, never guessed. On Grace Hopper the memory of each GPU is a
memory node of the host too, one without cores: `NumaNode.of_a_gpu`.
"""

from __future__ import annotations

import mmap
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipytune.memory.available import nvidia_smi
from ipytune.processor import cpu_name

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # nvidia-smi underlines the head, also in a pipe
_DEVICE = re.compile(r"(?:GPU|NIC)\d+")
_LINK = re.compile(r"X|SYS|NODE|PHB|PXB|PIX|OK|N/A|NV\d+|CNS|NS")
_CACHE = re.compile(r"(\d+)([KMG]?)")

MEANING: Mapping[str, str] = {
    "X": "itself",
    "NV": "NVLink, with the number of links",
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "the PCIe bridge of the processor",
    "NODE": "several PCIe bridges of one processor",
    "SYS": "PCIe and the connection between processors",
}
"""nvidia-smi's words for the way between two devices, best first."""


@dataclass(frozen=True)
class NumaNode:
    """Memory, and the cores that are near it. Sizes in bytes, distances as the firmware gives them: 10 is itself."""

    number: int
    cores: tuple[int, ...]
    total: int
    free: int
    distances: tuple[int, ...] = ()

    @property
    def of_a_gpu(self) -> bool:
        """Memory without cores. On Grace Hopper that is a GPU's; elsewhere it can be other memory."""
        return not self.cores and self.total > 0


@dataclass(frozen=True)
class Gpu:
    """What `nvidia-smi topo -m` says of one GPU: cores near it, their memory node, and its own memory's node."""

    name: str
    cores: tuple[int, ...] = ()
    numa: int | None = None
    own_numa: int | None = None


@dataclass(frozen=True)
class Links:
    """The matrix of `nvidia-smi topo -m`. devices: GPUs, then network cards; ways: (device, device) -> PIX, NV6, ..."""

    devices: tuple[str, ...]
    ways: Mapping[tuple[str, str], str]
    gpus: tuple[Gpu, ...]
    cards: Mapping[str, str]
    """NIC0 -> its name in the system."""

    def nvlinks(self, one: str, other: str) -> int:
        """NVLinks between two devices; 0 where there are none."""
        way = self.ways.get((one, other), "")
        return int(way[2:]) if way.startswith("NV") else 0

    @property
    def all_nvlink(self) -> bool:
        """Whether every pair of at least two GPUs is joined by NVLink."""
        names = [gpu.name for gpu in self.gpus]
        return len(names) > 1 and all(self.nvlinks(a, b) for a in names for b in names if a != b)


@dataclass(frozen=True)
class Interface:
    """A network interface; gigabits per second, None where the driver does not tell."""

    name: str
    gigabits: float | None = None
    numa: int | None = None


@dataclass(frozen=True)
class Node:
    """One machine, as this session sees it."""

    architecture: str
    processor: str
    page_bytes: int
    cores: int
    caches: tuple[tuple[str, int], ...]
    """Of the first core: (L1d, bytes), (L2, bytes), ..."""
    numa: tuple[NumaNode, ...]
    links: Links | None
    network: tuple[Interface, ...]


# --- reading it ------------------------------------------------------------------------------------------------------


def read(root: Path = Path("/"), ask: Callable[[Sequence[str]], str | None] = nvidia_smi) -> Node:
    """This machine now. root: where /sys is; ask: runs nvidia-smi with arguments, None when it cannot."""
    topology = ask(["topo", "-m"])
    memory = memory_nodes(root)
    return Node(
        architecture=platform.machine(),
        processor=cpu_name(),
        page_bytes=mmap.PAGESIZE,
        cores=len(cpulist(_text(root / "sys/devices/system/cpu/online"))),
        caches=caches(root),
        numa=memory,
        links=None if topology is None else parse_links(topology),
        network=interfaces(root),
    )


def memory_nodes(root: Path) -> tuple[NumaNode, ...]:
    """Every memory node under /sys with memory or cores, by number."""
    folders = (root / "sys/devices/system/node").glob("node[0-9]*")
    found = []
    for folder in sorted(folders, key=lambda folder: int(folder.name[4:])):
        sizes = dict(re.findall(r"^Node \d+ (\w+):\s+(\d+) kB$", _text(folder / "meminfo"), re.MULTILINE))
        distances = tuple(int(part) for part in _text(folder / "distance").split() if part.isdecimal())
        node = NumaNode(
            int(folder.name[4:]),
            cpulist(_text(folder / "cpulist")),
            int(sizes.get("MemTotal", 0)) * 1024,
            int(sizes.get("MemFree", 0)) * 1024,
            distances,
        )
        if node.cores or node.total:  # a superchip announces memory nodes for slices (MIG) that nobody made
            found.append(node)
    return tuple(found)


def caches(root: Path) -> tuple[tuple[str, int], ...]:
    """Data caches of the first core, nearest first."""
    found = {}
    for folder in (root / "sys/devices/system/cpu/cpu0/cache").glob("index[0-9]*"):
        level, kind = _text(folder / "level").strip(), _text(folder / "type").strip()
        size = _CACHE.fullmatch(_text(folder / "size").strip())
        if size is not None and kind in ("Data", "Unified"):
            name = f"L{level}{'d' if kind == 'Data' else ''}"
            found[name] = int(size[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[size[2]]
    return tuple(sorted(found.items()))


def interfaces(root: Path) -> tuple[Interface, ...]:
    """Network interfaces that are hardware: those of a container or of software have no device."""
    found = []
    for folder in sorted((root / "sys/class/net").glob("*")):
        if (folder / "device").exists():
            speed, numa = _text(folder / "speed").strip(), _text(folder / "device/numa_node").strip()
            gigabits = int(speed) / 1000 if speed.isdecimal() and int(speed) else None
            found.append(Interface(folder.name, gigabits, int(numa) if numa.isdecimal() else None))
    return tuple(found)


def cpulist(text: str) -> tuple[int, ...]:
    """The kernel's lists of cores.

    >>> cpulist("0-3,8"), cpulist("")
    ((0, 1, 2, 3, 8), ())
    """
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            numbers.extend(range(int(first), int(last if last.isdecimal() else first) + 1))
    return tuple(numbers)


def parse_links(text: str) -> Links | None:
    """The matrix that `nvidia-smi topo -m` prints; None when there is none in it.

    Columns are told apart by what stands in them, for nvidia-smi aligns them with a varying number of tabs.
    """
    lines = [_COLOURS.sub("", line) for line in text.splitlines()]
    head = next((line for line in lines if _DEVICE.match(line.strip()) and not line.startswith(("GPU", "NIC"))), None)
    if head is None:
        return None
    devices = tuple(_DEVICE.findall(head.split("CPU Affinity")[0]))
    ways: dict[tuple[str, str], str] = {}
    gpus: list[Gpu] = []
    cards: dict[str, str] = {}
    for line in lines:
        name, *fields = line.split() or [""]
        if name.endswith(":") and name[:-1] in devices and fields:
            cards[name[:-1]] = fields[0]
        elif name in devices and line is not head and len(fields) >= len(devices):
            row = fields[: len(devices)]
            if not all(_LINK.fullmatch(way) for way in row):
                continue
            ways.update({(name, other): way for other, way in zip(devices, row, strict=True)})
            if name.startswith("GPU"):
                gpus.append(_gpu(name, fields[len(devices) :]))
    return Links(devices, ways, tuple(gpus), cards)


def _gpu(name: str, rest: Sequence[str]) -> Gpu:
    """rest: cores, their memory node, the GPU's own memory node; any of them may be N/A or missing."""
    cores, numa, own = (*rest, "", "", "")[:3]
    return Gpu(name, cpulist(cores), int(numa) if numa.isdecimal() else None, int(own) if own.isdecimal() else None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
