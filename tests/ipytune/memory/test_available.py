"""What a session has is the smallest of the limits that apply to it, and has that limit's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.lora.config import RunConfig
from ipytune.memory.available import (
    Available,
    Card,
    Limit,
    available,
    choose,
    parse_cards,
    parse_slices,
    visible_gpus,
)

GIB = 2**30
CARDS = "0, GPU-aaaa, NVIDIA H100, 81559, 80000\n1, GPU-bbbb, NVIDIA H100, 81559, 1000\n"
LISTING = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
  MIG 1g.5gb      Device  0: (UUID: MIG-1111)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222)
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def nothing(arguments: Sequence[str]) -> None:
    return None


MACHINE = {"proc/meminfo": f"MemTotal: {64 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {32 * 2**20} kB\n"}
VERSION_2 = {
    "proc/self/cgroup": "0::/user.slice/job_7/step\n",
    "proc/self/mountinfo": "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
    "sys/fs/cgroup/user.slice/job_7/memory.max": f"{16 * GIB}\n",
    "sys/fs/cgroup/user.slice/job_7/memory.current": f"{6 * GIB}\n",
    "sys/fs/cgroup/user.slice/job_7/memory.stat": f"anon 5\ninactive_file {2 * GIB}\nactive_file 9\n",
    "sys/fs/cgroup/user.slice/job_7/step/memory.max": "max\n",
}


def test_the_machine_without_any_limit(tmp_path: Path) -> None:
    found = available({}, write(tmp_path, MACHINE), nothing)
    assert (found.host_limit.name, found.host_limit.free) == ("free memory of the machine", 32 * GIB)
    assert found.gpus == ()


def test_a_limit_of_a_group_above_binds_and_idle_page_cache_is_free(tmp_path: Path) -> None:
    limit = available({}, write(tmp_path, MACHINE | VERSION_2), nothing).host_limit
    assert (limit.name, limit.total, limit.free) == ("memory limit of the session (cgroup)", 16 * GIB, 12 * GIB)


def test_version_1_and_a_container_that_sees_its_group_as_the_top(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:cpu,memory:/kubepods/pod1/abc\n0::/\n",
        "proc/self/mountinfo": (
            "31 20 0:27 /kubepods/pod1/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
            "32 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        ),
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{8 * GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{3 * GIB}\n",
        "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {GIB}\n",
    }
    assert available({}, write(tmp_path, MACHINE | files), nothing).host_limit.free == 6 * GIB
    write(tmp_path, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"})
    assert available({}, tmp_path, nothing).host_limit.name == "free memory of the machine"


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_MEM_PER_NODE": "4096"},
        {"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "4"},
        {"SLURM_MEM_PER_GPU": "2048", "SLURM_GPUS_ON_NODE": "2"},
    ],
)
def test_a_slurm_job_has_what_it_asked_for(tmp_path: Path, environment: dict[str, str]) -> None:
    root = write(tmp_path, MACHINE | {"proc/self/status": f"VmRSS:   {2**20} kB\n"})
    limit = available({"SLURM_JOB_ID": "1", **environment}, root, nothing).host_limit
    assert (limit.name, limit.total, limit.free) == ("memory of the Slurm job", 4 * GIB, 3 * GIB)
    assert available(environment, root, nothing).host_limit.name == "free memory of the machine"


def test_memory_of_grace_hopper_gpus_is_no_host_memory(tmp_path: Path) -> None:
    nodes = {
        "sys/devices/system/node/node0/cpulist": "0-71\n",
        "sys/devices/system/node/node0/meminfo": "Node 0 MemFree: 999 kB\n",
        "sys/devices/system/node/node4/cpulist": "\n",
        "sys/devices/system/node/node4/meminfo": (
            f"Node 4 MemFree:       {4 * 2**20} kB\nNode 4 FilePages:     {6 * 2**20} kB\n"
        ),
    }
    root = write(tmp_path, MACHINE | nodes)
    found = available({}, root, lambda arguments: CARDS if "-L" not in arguments else "")
    assert found.host_limit.free == 22 * GIB
    assert "6.0 GiB of GPU memory" in found.notes[0]
    assert available({}, root, nothing).host_limit.free == 32 * GIB  # other nodes without processors stay


def test_gpus_are_those_that_cuda_shows() -> None:
    cards = parse_cards(CARDS)
    names = {
        None: ["GPU 0 (NVIDIA H100)", "GPU 1 (NVIDIA H100)"],
        "1": ["GPU 0 (NVIDIA H100)"],
        "1,0": ["GPU 0 (NVIDIA H100)", "GPU 1 (NVIDIA H100)"],
        "GPU-bb": ["GPU 0 (NVIDIA H100)"],
        "0,7,1": ["GPU 0 (NVIDIA H100)"],
        "": [],
        "-1": [],
        "0,0": ["GPU 0 (NVIDIA H100)"],
    }
    for visible, expected in names.items():
        assert [gpu.name for gpu in visible_gpus(cards, {}, visible)] == expected
    assert visible_gpus(cards, {}, "1")[0].free == 1000 * 2**20


def test_of_gpus_in_slices_one_slice_is_shown() -> None:
    slices = parse_slices(LISTING)
    cards = parse_cards("0, GPU-aaaa, NVIDIA A100, 40960, 40000")
    assert visible_gpus(cards, slices, None)[0].total == 5 * 10**9
    assert visible_gpus(cards, slices, "0")[0].total == 5 * 10**9
    assert visible_gpus(cards, slices, "MIG-2222")[0].total == 20 * 10**9


def test_a_gpu_that_does_not_tell_its_memory_is_named(tmp_path: Path) -> None:
    found = available({}, write(tmp_path, MACHINE), lambda arguments: "0, GPU-a, NVIDIA GB10, [N/A], [N/A]\n")
    assert found.gpus == () and found.notes == ("NVIDIA GB10 does not tell its memory.",)


@given(st.text(max_size=200))
def test_no_answer_of_nvidia_smi_is_an_error(text: str) -> None:
    assert all(isinstance(card, Card) for card in parse_cards(text))
    parse_slices(text)


def test_several_processes_have_what_the_fullest_gpu_has_free() -> None:
    there = Available((Limit("host", GIB),), (Limit("a", 4 * GIB, GIB), Limit("b", 4 * GIB)))
    first = there.gpu_limit(2)
    assert first is not None and first.name == "a"
    assert there.gpu_limit(3) is None


def test_this_machine_has_memory() -> None:
    found = available()
    assert all(0 <= limit.used <= limit.total for limit in found.host)
    assert found.host_limit.free > 0


def test_device_and_dtype_are_chosen_as_the_training_process_chooses() -> None:
    torch = pytest.importorskip("torch")
    from ipytune.lora.hardware import choose_device, choose_dtype
    from ipytune.processor import bfloat16_pays

    config = RunConfig(train_file=Path("t.jsonl"))
    device, dtype = choose(config, torch.cuda.is_available(), bfloat16_pays())
    chosen = choose_device("auto")
    assert (device, f"torch.{dtype}") == (chosen.type, str(choose_dtype("auto", chosen)))
    assert choose(config.model_copy(update={"dtype": "bfloat16", "device": "cpu"}), True, False) == ("cpu", "bfloat16")
