"""kill -9 at any instant tears nothing, and the run that goes on is the very run that would have been."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ipytune.lora import checkpoint
from ipytune.lora.config import RunConfig, sha256_of
from ipytune.lora.loop import write_adapter
from ipytune.runs.directory import RunDirectory, curve
from ipytune.runs.status import Status
from tests.ipytune.lora import tiny
from tests.ipytune.lora.trainers import Ended, Trainers, killed_at

KILLS = 20
ADAPTER = r"/\.?adapter(\.\w+)*$"


@pytest.fixture(scope="module")
def trainers() -> Iterator[Trainers]:
    trainers = Trainers()
    yield trainers
    trainers.close()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("task")
    return tiny.task(folder, tiny.save(folder / "model"), max_steps=9, checkpoint_every=2)


@pytest.fixture(scope="module")
def uninterrupted(
    trainers: Trainers, config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDirectory, Ended]:
    directory = made(config, tmp_path_factory.mktemp("whole") / "run")
    ended = trainers.train(directory.path)
    assert ended.code == 0, directory.log_tail()
    return directory, ended


@pytest.fixture(scope="module")
def whole(uninterrupted: tuple[RunDirectory, Ended]) -> RunDirectory:
    return uninterrupted[0]


def made(config: RunConfig, path: Path) -> RunDirectory:
    directory = RunDirectory(path)
    directory.create(config.as_yaml())
    return directory


def losses(directory: RunDirectory) -> list[tuple[int, float]]:
    return [(point["step"], point["loss"]) for point in curve(directory.read_events()[0])]


def phases(directory: RunDirectory) -> list[dict[str, Any]]:
    return [event for event in directory.read_events()[0] if event["kind"] == "phase"]


def check_the_same(run: RunDirectory, whole: RunDirectory) -> None:
    assert losses(run) == losses(whole)
    name = "adapter_model.safetensors"
    assert (run.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()
    ours, theirs = run.read_report(), whole.read_report()
    for fact in ("ended_by", "step", "adapter_step", "tokens", "loss", "eval_loss", "best_eval_loss"):
        assert ours[fact] == theirs[fact], fact


def check_nothing_is_torn(run: RunDirectory, kills: int) -> None:
    for file in (run.status, run.report, run.process):
        assert not file.exists() or isinstance(json.loads(file.read_text()), dict)
    lines = run.events.read_bytes().split(b"\n") if run.events.exists() else []
    assert sum(not is_json(line) for line in lines[:-1] if line) <= kills  # each may cut the line it was writing
    for directory in run.checkpoints.glob("step-*"):
        assert checkpoint.is_whole(directory), f"{directory.name} is torn"
    if run.adapter.exists():
        json.loads((run.adapter / "adapter_config.json").read_text())
        assert load_file(run.adapter / "adapter_model.safetensors")


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_twenty_kills_at_random_instants(
    trainers: Trainers, config: RunConfig, uninterrupted: tuple[RunDirectory, Ended], tmp_path: Path
) -> None:
    """Half of them by the clock, half in the middle of what the trainer does to its files, where harm is likeliest."""
    source = random.Random(4)
    whole, measured = uninterrupted
    kills, number, resumed = 0, 0, 0
    run, killed_here = made(config, tmp_path / "0"), 0
    while kills < KILLS:
        by_clock = kills % 2 == 0
        ended = trainers.train(
            run.path,
            after_seconds=source.uniform(0, measured.seconds) if by_clock else None,
            at_touch=None if by_clock else source.randrange(measured.touches) + 1,
        )
        if ended.killed:
            kills, killed_here = kills + 1, killed_here + 1
            check_nothing_is_torn(run, killed_here)
            continue
        assert ended.code == 0, run.log_tail()
        resumed += sum(event["kind"] == "resumed" for event in run.read_events()[0])
        check_the_same(run, whole)
        number += 1
        run, killed_here = made(config, tmp_path / str(number)), 0
    assert trainers.train(run.path).code == 0, run.log_tail()
    check_the_same(run, whole)
    assert resumed  # some of the kills came after a checkpoint


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(
    trainers: Trainers, config: RunConfig, whole: RunDirectory, tmp_path: Path
) -> None:
    run = made(config, tmp_path / "run")
    assert trainers.train(run.path, counted_from=r"/\.step-6\.\d+$", at_touch=3).killed  # while it writes step-6
    last = checkpoint.latest(run.checkpoints)
    assert last is not None and last.name == "step-4"
    assert trainers.train(run.path).code == 0
    assert [event["step"] for event in run.read_events()[0] if event["kind"] == "resumed"] == [4]
    check_the_same(run, whole)


def test_sigterm_checkpoints_says_so_and_the_run_goes_on_as_if_nothing_had_been(
    trainers: Trainers, config: RunConfig, whole: RunDirectory, tmp_path: Path
) -> None:
    run = made(config, tmp_path / "run")
    ended = trainers.train(run.path, counted_from=r"/\.step-4\.\d+$", at_touch=1, signal=signal.SIGTERM)
    assert ended.code == 0
    status: Status = run.read_status()
    assert (status.phase, status.ended_by, status.step) == ("stopped", "SIGTERM", 4)
    assert (phases(run)[-1]["phase"], phases(run)[-1]["ended_by"]) == ("stopped", "SIGTERM")
    assert run.read_report()["ended_by"] == "SIGTERM"
    assert checkpoint.is_whole(run.checkpoints / "step-4")
    check_nothing_is_torn(run, kills=0)
    assert run.adapter.is_dir()
    assert trainers.train(run.path).code == 0
    check_the_same(run, whole)


@pytest.mark.parametrize("during", ["loading_model", "finalizing"])
def test_sigterm_outside_of_training_keeps_what_there_is(
    trainers: Trainers, config: RunConfig, whole: RunDirectory, tmp_path: Path, during: str
) -> None:
    run = made(config, tmp_path / "run")
    if during == "finalizing":
        ended = trainers.train(run.path, counted_from=ADAPTER, at_touch=1, signal=signal.SIGTERM)
        assert (ended.code, run.read_report()["ended_by"]) == (0, "steps")
    else:
        ended = trainers.train(run.path, counted_from=r"status\.json", at_touch=5, signal=signal.SIGTERM)
        assert (ended.code, run.read_report()["ended_by"]) == (0, "SIGTERM")
        assert checkpoint.is_whole(run.checkpoints / "step-0")
        assert trainers.train(run.path).code == 0
    check_the_same(run, whole)


# --- every touch of a file, without training in between -----------------------------------------------------------


class Saves:
    """Stands for a model: saves an adapter of two files that must belong together."""

    def __init__(self, content: str) -> None:
        self.content = content

    def save_result(self, directory: Path) -> None:
        directory.mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (directory / name).write_text(self.content)


def test_an_adapter_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Also when the one before was killed at any instant."""
    adapter = tmp_path / "adapter"
    write_adapter(Saves("0"), adapter)  # type: ignore[arg-type]
    at_touch, was = 1, "0"
    while killed_at(partial(write_adapter, Saves(str(at_touch)), adapter), tmp_path, at_touch):
        if adapter.exists():
            (found,) = {file.read_text() for file in adapter.iterdir()}
            assert found in {was, str(at_touch)} and len(list(adapter.iterdir())) == 2
            was = found
        at_touch += 1
    assert at_touch > 5
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_old_checkpoints_are_removed_as_wholes(tmp_path: Path) -> None:
    at_touch = 1
    while True:
        folder = tmp_path / str(at_touch)
        for step in (1, 2, 3):
            saved = folder / f"step-{step}"
            saved.mkdir(parents=True)
            (saved / "state.pt").write_text("x")
            (saved / "manifest.json").write_text(json.dumps({"state.pt": sha256_of(saved / "state.pt")}))
        killed = killed_at(partial(checkpoint.prune, folder, keep=1), folder, at_touch)
        assert all(checkpoint.is_whole(directory) for directory in folder.glob("step-*"))
        assert (folder / "step-3").is_dir()
        if not killed:
            break
        checkpoint.prune(folder, keep=1)
        assert [path.name for path in folder.iterdir()] == ["step-3"]
        at_touch += 1
    assert at_touch > 5
