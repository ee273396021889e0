"""What the kernel and nvidia-smi print of a node is read right, and what they leave out is not invented."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.node import topology
from ipytune.node.topology import Interface, NumaNode, cpulist, parse_links

GH200 = (files("ipytune.node") / "samples/gh200-topo.txt").read_text(encoding="utf-8")
# Two cards a socket, without NVLink; older drivers have no column for the GPU's own memory node.
PCIE = """\
        GPU0    GPU1    NIC0    CPU Affinity    NUMA Affinity
GPU0     X      SYS     NODE    0-23,48-71      0
GPU1    SYS      X      SYS     24-47,72-95     1
NIC0    NODE    SYS      X

NIC Legend:

  NIC0: mlx5_0
"""
ALONE = "\tGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\nGPU0\t X \t\t\t\tN/A\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_node_of_four_superchips() -> None:
    links = parse_links(GH200)
    assert links is not None
    assert links.devices == ("GPU0", "GPU1", "GPU2", "GPU3", "NIC0", "NIC1", "NIC2", "NIC3")
    assert links.all_nvlink and links.nvlinks("GPU0", "GPU3") == 6
    assert links.ways["GPU2", "NIC2"] == "PHB" and links.ways["GPU2", "NIC1"] == "SYS"
    assert [(len(gpu.cores), gpu.numa, gpu.own_numa) for gpu in links.gpus] == [
        (72, 0, 4),
        (72, 1, 12),
        (72, 2, 20),
        (72, 3, 28),
    ]
    assert links.cards["NIC3"] == "cxi3"


def test_cards_without_nvlink() -> None:
    links = parse_links(PCIE)
    assert links is not None and not links.all_nvlink
    assert links.nvlinks("GPU0", "GPU1") == 0 and links.ways["GPU0", "GPU1"] == "SYS"
    assert links.gpus[1].cores[:2] == (24, 25) and links.gpus[1].numa == 1 and links.gpus[1].own_numa is None
    assert links.cards == {"NIC0": "mlx5_0"}


def test_one_gpu_has_nobody_to_be_joined_with() -> None:
    links = parse_links(ALONE)
    assert links is not None and links.devices == ("GPU0",) and not links.all_nvlink
    assert links.gpus[0].numa is None


@pytest.mark.parametrize("text", ["", "Failed to initialize NVML: Driver/library version mismatch", "GPU0\t X \n"])
def test_what_is_no_matrix_gives_none(text: str) -> None:
    assert parse_links(text) is None


@given(st.text(alphabet="GPUNICX01 \t\nNV6SYS/A-,:\x1b[4m", max_size=200))
def test_no_text_is_an_error(text: str) -> None:
    parse_links(text)


@given(st.sets(st.integers(0, 300), max_size=40))
def test_a_list_of_cores_is_read_back(cores: set[int]) -> None:
    assert cpulist(",".join(map(str, sorted(cores)))) == tuple(sorted(cores))


def test_memory_nodes_of_a_superchip(tmp_path: Path) -> None:
    folder = "sys/devices/system/node"
    write(
        tmp_path,
        {
            f"{folder}/node0/cpulist": "0-71\n",
            f"{folder}/node0/meminfo": "Node 0 MemTotal:  124000000 kB\nNode 0 MemFree:  100 kB\n",
            f"{folder}/node0/distance": "10 40 80\n",
            f"{folder}/node4/cpulist": "\n",
            f"{folder}/node4/meminfo": "Node 4 MemTotal:  99000000 kB\nNode 4 MemFree:  98000000 kB\n",
            f"{folder}/node5/cpulist": "\n",  # announced for a slice that nobody made
            f"{folder}/node5/meminfo": "Node 5 MemTotal:  0 kB\n",
        },
    )
    host, gpu = topology.memory_nodes(tmp_path)
    assert (host.number, len(host.cores), host.distances, host.of_a_gpu) == (0, 72, (10, 40, 80), False)
    assert gpu == NumaNode(4, (), 99000000 * 1024, 98000000 * 1024) and gpu.of_a_gpu


def test_interfaces_are_hardware_only(tmp_path: Path) -> None:
    net = "sys/class/net"
    write(
        tmp_path,
        {
            f"{net}/hsn0/speed": "200000\n",
            f"{net}/hsn0/device/numa_node": "0\n",
            f"{net}/eth0/speed": "-1\n",
            f"{net}/eth0/device/numa_node": "-1\n",
            f"{net}/lo/mtu": "65536\n",
        },
    )
    assert topology.interfaces(tmp_path) == (Interface("eth0"), Interface("hsn0", 200.0, 0))


def test_caches_of_a_core(tmp_path: Path) -> None:
    for index, level, kind, size in ((0, 1, "Data", "64K"), (1, 1, "Instruction", "64K"), (2, 2, "Unified", "1024K")):
        folder = f"sys/devices/system/cpu/cpu0/cache/index{index}"
        write(tmp_path, {f"{folder}/level": f"{level}\n", f"{folder}/type": kind, f"{folder}/size": size})
    assert topology.caches(tmp_path) == (("L1d", 2**16), ("L2", 2**20))


def test_this_machine_is_read_without_a_gpu() -> None:
    node = topology.read(ask=lambda arguments: None)
    assert node.cores >= 1 and node.links is None and node.page_bytes >= 4096
