"""Runs as processes of their own: they outlive their handle, stop when asked, and never vanish without a reason."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.runs import Phase, Run, RunFailed, Status
from ipytune.runs.directory import STOP, RunDirectory, curve
from ipytune.runs.process import alive, identify, prepare
from tests.ipytune.lora import tiny
from tests.ipytune.runs.written import run_in

LIMIT = 180.0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def config(base: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(
        model=str(base),
        train_file=tiny.write_conversations(tmp_path / "train.jsonl", 16),
        lora=LoraSettings(rank=4),
        max_steps=100_000,
        checkpoint_every=5,
        threads=1,
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def test_a_run_survives_its_starter_a_signal_and_a_kill(config: RunConfig, tmp_path: Path) -> None:
    """Two processes, since each takes seconds to import torch: one that is asked to end, and one that is killed."""
    config.to_yaml(tmp_path / "c.yaml")
    starter = (
        "import sys; from ipytune.runs import Run; from ipytune.lora.config import RunConfig;"
        "Run.start(RunConfig.from_yaml(sys.argv[1]), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", starter, str(tmp_path / "c.yaml"), str(tmp_path / "run")], check=True)
    run = Run.open(tmp_path / "run")
    until(lambda: run.status().step >= 3)
    with pytest.raises(ValueError, match="already holds a run"):
        Run.start(config, run.path)
    with pytest.raises(ValueError, match="is still training"):
        Run.start(config, run.path, resume=True)
    os.kill(run.status().pid or 0, signal.SIGTERM)
    report = run.wait(LIMIT)
    assert report["ended_by"] == "SIGTERM"
    assert run.status().phase is Phase.STOPPED
    assert (run.adapter / "adapter_model.safetensors").is_file()

    with pytest.raises(ValueError, match=r"learning_rate \(was 0.0002, now 0.1\)"):
        Run.start(config.model_copy(update={"learning_rate": 0.1}), run.path, resume=True)
    again = Run.start(config, run.path, resume=True)
    until(lambda: again.status().step > report["step"])
    os.kill(again.status().pid or 0, signal.SIGKILL)
    with pytest.raises(RunFailed, match=r"SIGKILL \(most often: out of memory") as raised:
        again.wait(LIMIT)
    assert "resume" in raised.value.why
    events = again.events()[0]
    assert [event["step"] for event in events if event["kind"] == "resumed"] == [report["step"]]
    steps = [point["step"] for point in curve(events)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > report["step"]
    assert Run.open(run.path).status().phase is Phase.ERROR
    assert prepare(config, RunDirectory(run.path), resume=True)  # and may be continued


def test_bad_data_fails_before_a_model_is_loaded(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"messages": []}\n')
    run = Run.start(config.model_copy(update={"model": "no-such-model"}), tmp_path / "run")
    with pytest.raises(RunFailed, match=r"train.jsonl:1: no messages"):
        run.wait(LIMIT)
    phases = [event["phase"] for event in run.events()[0] if event["kind"] == "phase"]
    assert phases == ["loading_dataset", "error"]


def test_an_interrupted_wait_asks_the_run_to_stop(tmp_path: Path) -> None:
    run = silent_run(tmp_path, os.getpid())

    def interrupt(status: Status) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.wait(LIMIT, on_status=interrupt)
    assert RunDirectory(run.path).asked(STOP)


def test_wait_gives_up_without_ending_the_run(tmp_path: Path) -> None:
    run = silent_run(tmp_path, os.getpid())
    with pytest.raises(TimeoutError, match="It goes on"):
        run.wait(timeout=0)


def test_a_process_that_died_before_its_first_word_is_an_error(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run = silent_run(tmp_path, gone.pid)
    assert run.status().phase is Phase.ERROR
    assert "is gone while loading_model" in (run.status().error or "")


def test_a_reused_pid_is_not_taken_for_the_run() -> None:
    process = identify(os.getpid())
    assert alive(process)
    assert process.started is None or not alive(process.model_copy(update={"started": "1"}))


def test_a_handle_is_pickled_as_its_directory(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    copied = pickle.loads(pickle.dumps(Run.open(tmp_path / "run")))
    assert copied.path == tmp_path / "run" and copied.status() == Run.open(tmp_path / "run").status()


def test_no_run_no_handle(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        Run.open(tmp_path)


def silent_run(tmp_path: Path, pid: int) -> Run:
    directory = RunDirectory(tmp_path / "run")
    directory.create("train_file: t.jsonl\n")
    directory.write_status(Status(phase=Phase.LOADING_MODEL))
    directory.write_process(identify(pid))
    return Run.open(directory.path)


def test_events_continue_from_an_offset_and_wait_for_whole_lines(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    assert directory.read_events() == ([], 0)
    directory.append_event("metric", step=1)
    events, offset = directory.read_events()
    assert events == [{"kind": "metric", "step": 1}]
    with directory.events.open("a") as file:
        file.write('{"kind": "met')
    assert directory.read_events(offset) == ([], offset)
    directory.append_event("metric", step=2)
    assert directory.read_events(offset)[0] == [{"kind": "metric", "step": 2}]


def test_status_is_never_half_written(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    for step in range(50):
        directory.write_status(Status(step=step))
        assert json.loads(directory.status.read_text())["step"] == step
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_repeated_stretch_appears_once_in_the_curve() -> None:
    metric = [{"kind": "metric", "step": step, "loss": 1.0} for step in (1, 2, 3)]
    again = [{"kind": "metric", "step": step, "loss": 2.0} for step in (2, 3)]
    points = curve([*metric, {"kind": "resumed", "step": 1}, *again])
    assert [(point["step"], point["loss"]) for point in points] == [(1, 1.0), (2, 2.0), (3, 2.0)]
