"""Two processes train what one trains: DDP and a sharded base, over gloo on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.lora.parallel import needs_shards, shards, shares
from ipytune.runs.directory import RunDirectory
from tests.ipytune.lora.test_loop import adapter, base, config, go, losses

__all__ = ["base", "config"]  # fixtures


def torchrun(config: RunConfig, path: Path, processes: int = 2) -> RunDirectory:
    directory = RunDirectory(path)
    directory.create(config.as_yaml())
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*argv, "-m", "ipytune.lora.train", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return directory


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_equal_one(config: RunConfig, tmp_path: Path, parallel: str) -> None:
    update = {"lora": LoraSettings(rank=4), "max_steps": 4, "parallel": parallel}
    config = config.model_copy(update=update)
    alone, together = go(config, tmp_path / "alone"), torchrun(config, tmp_path / "together")
    report = together.read_report()
    assert report["processes"] == 2 and report["step"] == 4
    assert report["eval_loss"] == pytest.approx(alone.read_report()["eval_loss"], rel=1e-4)
    for (step, ours), (other, theirs) in zip(losses(together), losses(alone), strict=True):
        assert step == other and ours == pytest.approx(theirs, rel=1e-4)
    wanted = adapter(alone)
    for name, found in adapter(together).items():
        torch.testing.assert_close(found, wanted[name], rtol=1e-3, atol=1e-4)
    assert len([event for event in together.read_events()[0] if event["kind"] == "checkpoint"]) == 1


@given(st.lists(st.integers(1, 100), max_size=40), st.integers(1, 8))
def test_shares_hold_every_item_once_and_are_even(sizes: list[int], processes: int) -> None:
    given_out = shares(range(len(sizes)), sizes, processes)
    assert len(given_out) == processes
    assert sorted(item for share in given_out for item in share) == list(range(len(sizes)))
    loads = [sum(sizes[item] for item in share) for share in given_out]
    assert max(loads) - min(loads) <= max(sizes, default=0)


def test_a_base_is_sharded_by_itself_only_where_no_gpu_holds_it(config: RunConfig) -> None:
    assert needs_shards(140 * 2**30, 96 * 2**30) and not needs_shards(16 * 2**30, 96 * 2**30)
    cpu = torch.device("cpu")
    assert not shards(config, 2, cpu, torch.float32)
    assert shards(config.model_copy(update={"parallel": "fsdp"}), 2, cpu, torch.float32)
