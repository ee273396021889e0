"""Which process of a run this is, told from torchrun's and srun's variables."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.runs.launch import ranks
from ipytune.runs.launch.environment import for_a_job

STEP = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0)),
        (TORCHRUN, (5, 8, 1)),
        (STEP, (1, 2, 0)),
        ({**STEP, **TORCHRUN}, (5, 8, 1)),  # srun counts launchers, torchrun trainers
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1, 0)),  # the shell of a job script
        ({"LOCAL_RANK": "0"}, (0, 1, 0)),
    ],
)
def test_rank_size_and_local_rank(environment: dict[str, str], expected: tuple[int, int, int]) -> None:
    found = (ranks.rank(environment), ranks.world_size(environment), ranks.local_rank(environment))
    assert found == expected
    assert ranks.is_first(environment) is (expected[0] == 0)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "only one is set"),
        ({"WORLD_SIZE": "2"}, "only one is set"),
        ({"RANK": "two", "WORLD_SIZE": "2"}, "numbers are expected"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "contradict each other"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "contradict each other"),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranks.rank(environment)


@given(st.integers(1, 64))
def test_exactly_one_process_is_the_first(size: int) -> None:
    firsts = [ranks.is_first({"RANK": str(rank), "WORLD_SIZE": str(size)}) for rank in range(size)]
    assert firsts.count(True) == 1


def test_a_job_gets_the_user_s_settings_and_nothing_of_the_session() -> None:
    own = {"HOME": "/home/ada", "HF_HOME": "/models", "SLURM_CONF": "/etc/slurm.conf"}
    session = {"JUPYTERHUB_API_TOKEN": "secret", "JPY_PARENT_PID": "1", "SLURM_MEM_PER_NODE": "4096"}
    devices = {"CUDA_VISIBLE_DEVICES": "0", "MASTER_ADDR": "nid000001"}
    assert for_a_job({**own, **session, **devices, **TORCHRUN, **STEP}) == own


def test_ranks_need_no_torch() -> None:
    check = "import sys, ipytune.runs.launch.ranks, ipytune.runs.launch.job; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
