"""Runs begun inside a job and runs of this session: prepared, recorded, asked to stop, ended by force."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ipytune.lora.config import RunConfig
from ipytune.runs import Phase, Run, Status
from ipytune.runs.directory import STOP, RunDirectory
from ipytune.runs.launch import LaunchError, Session, commands, job
from ipytune.runs.launch.base import InKubernetes, InSlurm, SignsOfLife, read_launched, stop_reason, write_launched
from ipytune.runs.launch.session import ProcessHandle

IN_SLURM = {"SLURM_JOB_ID": "12", "SLURM_CLUSTER_NAME": "alps"}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    line = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(line) + "\n")
    config = RunConfig(train_file=Path("train.jsonl"), max_steps=3)
    config.to_yaml(tmp_path / "config.yaml")
    return config


def begin(tmp_path: Path, *more: str) -> int:
    return job.main([str(tmp_path / "run"), "--config", str(tmp_path / "config.yaml"), *more])


@pytest.fixture
def in_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IN_SLURM.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("in_slurm")
def test_a_job_makes_its_run_directory_and_says_who_it_is(config: RunConfig, tmp_path: Path) -> None:
    assert begin(tmp_path) == 0
    directory = RunDirectory(tmp_path / "run")
    assert read_launched(directory) == InSlurm(job="12", cluster="alps")
    assert directory.read_status().phase is Phase.IDLE
    assert RunConfig.from_yaml(directory.config).train_file == tmp_path / "train.jsonl"


@pytest.mark.usefixtures("in_slurm")
def test_a_job_continues_a_run_that_stopped_and_leaves_a_complete_one(config: RunConfig, tmp_path: Path) -> None:
    assert begin(tmp_path) == 0
    directory = RunDirectory(tmp_path / "run")
    directory.write_status(Status(phase=Phase.STOPPED))
    directory.ask(STOP)
    assert begin(tmp_path) == 0
    assert stop_reason(directory) is None
    directory.write_report({"ended_by": "steps"})
    directory.write_status(Status(phase=Phase.COMPLETED))
    assert begin(tmp_path) == job.COMPLETE


@pytest.mark.usefixtures("in_slurm")
def test_a_job_refuses_another_experiment(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert begin(tmp_path) == 0
    RunDirectory(tmp_path / "run").write_status(Status(phase=Phase.STOPPED))
    config.model_copy(update={"seed": 7}).to_yaml(tmp_path / "config.yaml")
    assert begin(tmp_path) == 1
    assert "seed (was 0, now 7)" in capsys.readouterr().err


def test_a_job_without_a_run_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main([str(tmp_path / "run")]) == 1
    assert "Name one with --config" in capsys.readouterr().err


def test_who_this_job_is() -> None:
    pod = {job.JOB_VARIABLE: "ipytune-7", job.NAMESPACE_VARIABLE: "ml"}
    assert job.this_job(IN_SLURM) == InSlurm(job="12", cluster="alps")
    assert job.this_job({**IN_SLURM, **pod}) == InKubernetes(job="ipytune-7", namespace="ml")
    assert job.this_job({}) is None


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    write_launched(directory, InSlurm(job="12"))
    (tmp_path / "launch/launched.json").write_text('{"kind": "slurm", "job": "12; rm -r ~"}')
    assert read_launched(directory) is None


def test_several_processes_go_through_torchrun() -> None:
    assert commands.trainer("python", "/runs/a b") == ["python", "-m", "ipytune.lora.train", "/runs/a b"]
    assert commands.trainer("python", "/runs/a", 4) == [
        *("python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "--max-restarts=0"),
        *("-m", "ipytune.lora.train", "/runs/a"),
    ]


def test_a_stop_says_why(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    assert stop_reason(directory) is None
    directory.ask(STOP)
    assert stop_reason(directory) == "stop"
    (directory.control / STOP).write_text("walltime\n")
    assert stop_reason(directory) == "walltime"


def test_a_process_that_does_not_listen_is_ended_by_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(commands, "trainer", lambda *_: [sys.executable, "-c", deaf])
    monkeypatch.setattr("ipytune.runs.launch.session._TERM_SECONDS", 0.2)
    directory = RunDirectory(tmp_path / "run")
    directory.create("train_file: t.jsonl\n")
    handle = Session().start(directory)
    assert handle.alive() and handle.describe().startswith("process ")
    again = ProcessHandle(directory)
    assert again.alive()
    handle.stop(grace=0.0)
    assert not handle.alive() and not again.alive()
    assert handle.ending().startswith(("was killed by SIGKILL", "was killed by SIGTERM"))
    assert again.ending() == "is gone"


def test_a_process_of_another_machine_is_not_signalled_here(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create("train_file: t.jsonl\n")
    directory.process.write_text(json.dumps({"pid": os.getpid(), "host": "elsewhere", "started": None}))
    handle = ProcessHandle(directory)
    assert handle.alive()
    with pytest.raises(LaunchError, match="cannot be ended from here"):
        handle.stop(grace=0.0)
    assert Run.open(directory.path).runner == f"process {os.getpid()} on elsewhere"


def test_a_run_whose_machine_cannot_be_asked_may_be_continued_once_it_is_quiet(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert begin(tmp_path) == 0
    directory = RunDirectory(tmp_path / "run")
    directory.process.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": None}))
    directory.write_status(Status(phase=Phase.TRAINING, step=2))
    assert begin(tmp_path) == 1
    assert "is still training (process 1 on elsewhere)" in capsys.readouterr().err
    long_ago = datetime.now(timezone.utc) - timedelta(minutes=11)
    directory.write_status(Status(phase=Phase.TRAINING, step=2, updated_at=long_ago))
    assert begin(tmp_path) == 0


def test_schedulers_are_asked_rarely_and_never_while_the_run_speaks(tmp_path: Path) -> None:
    directory, now = RunDirectory(tmp_path), [0.0]
    signs = SignsOfLife(directory, 15.0, clock=lambda: now[0])
    due = []
    for second in range(60):
        now[0] = second
        if second == 20:
            directory.write_status(Status(step=1))
        if signs.question_due():
            due.append(second)
    assert due == [0, 15, 35, 50]


def test_no_process_without_a_number() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Session(0)
