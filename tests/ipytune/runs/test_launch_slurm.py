"""Batch jobs: the script, the launcher over stand-ins for Slurm's commands, and both for real on a private cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ipytune
from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.runs import Phase, Run, Status
from ipytune.runs.directory import RunDirectory
from ipytune.runs.export import export
from ipytune.runs.launch import LaunchError, Sbatch, SlurmSettings, scheduled, slurm, slurm_script
from ipytune.runs.launch.base import InSlurm, read_launched, write_launched
from tests.clusters.slurm import SlurmCluster

LIMIT = 120.0
TOKEN = "hf-marker-of-a-secret"

FULL = SlurmSettings(
    name="headers",
    partition="normal",
    account="g123",
    reservation="course",
    constraint="gpu",
    walltime="02:00:00",
    nodes=2,
    gpus_per_node=4,
    gpu_type="gh200",
    cpus_per_node=288,
    memory_per_node="450G",
    srun_options=("--environment=py torch", "--mpi=none"),
)


def test_the_script_that_is_submitted(golden: Callable[[str, str], None]) -> None:
    golden("launched.sbatch", slurm_script.launched(FULL, "/opt/my env/bin/python", "/scratch/ada's runs/$(id)"))


@pytest.mark.parametrize("settings", [SlurmSettings(), FULL])
def test_scripts_are_shell(settings: SlurmSettings) -> None:
    for script in (slurm_script.launched(settings, "python3", "/r u n"), slurm_script.exported(settings, ["a fact"])):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_nothing_but_comments_stands_before_the_last_directive() -> None:
    """sbatch reads no directive after the first command."""
    lines = slurm_script.exported(FULL, ["fact"]).splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") or not line for line in lines[:last])
    assert any(line.startswith("#SBATCH --signal=B:TERM@120") for line in lines)


def test_a_fact_stays_in_its_comment() -> None:
    script = slurm_script.exported(SlurmSettings(), ["torch 2\n#SBATCH --uid=0\nrm -r ~"])
    assert "\n#SBATCH --uid" not in script and "\nrm" not in script


def test_a_file_name_means_itself_to_sbatch() -> None:
    assert "--output=/runs/100%%j/train.log" in slurm_script.submission("/runs/100%j")
    with pytest.raises(ValueError, match="backslash"):
        slurm_script.submission("/runs/a\\b")


# Slurm's commands as the launcher meets them: each answers with its files answers/NAME.{code,out,err}, and is noted.
STAND_IN = """#!/bin/bash
here=$(dirname "$0")/answers; name=$(basename "$0")
printf '%s\\n' "$name $*" >> "$here/calls"
[ -f "$here/$name.out" ] && cat "$here/$name.out"
[ -f "$here/$name.err" ] && cat "$here/$name.err" >&2
exit "$(cat "$here/$name.code" 2>/dev/null || echo 0)"
"""


class StandIn:
    def __init__(self, folder: Path) -> None:
        self.answers = folder / "answers"
        self.answers.mkdir()
        for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol"):
            (folder / name).write_text(STAND_IN)
            (folder / name).chmod(0o755)
        self.says("scontrol", "ClusterName             = alps\n")

    def says(self, name: str, out: str = "", err: str = "", code: int = 0) -> None:
        for kind, text in (("out", out), ("err", err), ("code", str(code))):
            (self.answers / f"{name}.{kind}").write_text(text)

    @property
    def calls(self) -> list[str]:
        return (self.answers / "calls").read_text().splitlines()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    slurm.local_cluster.cache_clear()
    yield StandIn(tmp_path / "bin")
    slurm.local_cluster.cache_clear()


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create("train_file: t.jsonl\n")
    directory.write_status(Status())
    return directory


def test_a_submitted_run_is_known_by_its_job(stand_in: StandIn, directory: RunDirectory) -> None:
    stand_in.says("sbatch", "12\n")
    stand_in.says("squeue", "PENDING|Priority\n")
    handle = Sbatch(SlurmSettings(partition="debug")).start(directory)
    assert read_launched(directory) == InSlurm(job="12", cluster="alps")
    assert stand_in.calls[0].startswith("sbatch --parsable --export=ALL --output=")
    assert "#SBATCH --partition=debug" in (directory.path / "launch/job.sbatch").read_text()
    assert handle.alive()
    assert handle.describe() == "Slurm job 12 on alps (waiting: Priority)"
    run = Run.open(directory.path)
    run.stop()
    assert "scancel --state=PENDING 12" in stand_in.calls
    assert sum(call.startswith("squeue") for call in stand_in.calls) == 2  # one a handle, however often it is asked
    for _ in range(20):
        assert run.status().phase is Phase.IDLE


def test_a_refused_job_leaves_no_run(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.says("sbatch", err="sbatch: error: invalid partition specified: fast\n", code=1)
    (tmp_path / "t.jsonl").write_text("{}\n")
    config = RunConfig(train_file=tmp_path / "t.jsonl")
    with pytest.raises(LaunchError, match="invalid partition specified: fast"):
        Run.start(config, tmp_path / "new", launcher=Sbatch(SlurmSettings(partition="fast")))
    with pytest.raises(FileNotFoundError):
        Run.open(tmp_path / "new")


@pytest.mark.parametrize(
    ("squeue", "sacct", "reason"),
    [
        ("TIMEOUT|TimeLimit\n", "", "Slurm job 12 on alps reached its walltime while training, at step 7"),
        ("", "OUT_OF_MEMORY|0:125\n", "ran out of memory (lower row_tokens"),
        ("", "FAILED|1:0\n", "failed with exit code 1"),
        ("", "", "is no longer known to Slurm"),
    ],
)
def test_a_job_that_is_gone_has_a_reason_and_the_log_s_end(
    stand_in: StandIn, directory: RunDirectory, squeue: str, sacct: str, reason: str
) -> None:
    stand_in.says("squeue", squeue)
    stand_in.says("sacct", sacct)
    write_launched(directory, InSlurm(job="12", cluster="alps"))
    directory.write_status(Status(phase=Phase.TRAINING, step=7))
    directory.log.write_text("the last words\n")
    status = Run.open(directory.path).status()
    assert status.phase is Phase.ERROR
    assert reason in (status.error or "") and "the last words" in (status.error or "")


@pytest.mark.parametrize(
    ("cluster", "error"),
    [("alps", "squeue: error: Unable to contact slurm controller"), ("another", "Invalid job id specified")],
)
def test_silence_and_another_cluster_prove_nothing(
    stand_in: StandIn, directory: RunDirectory, cluster: str, error: str
) -> None:
    stand_in.says("squeue", err=error, code=1)
    write_launched(directory, InSlurm(job="12", cluster=cluster))
    run = Run.open(directory.path)
    assert run.status().phase is Phase.IDLE
    assert "Slurm does not answer" in run.runner


def test_the_last_word_of_a_job_that_ended_well_may_come_late(
    stand_in: StandIn, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.says("squeue", "COMPLETED|None\n")
    write_launched(directory, InSlurm(job="12", cluster="alps"))
    run = Run.open(directory.path)
    assert run.status().phase is Phase.IDLE
    monkeypatch.setattr(scheduled, "SETTLE_SECONDS", 0.0)
    assert "ended without a last word" in (run.status().error or "")


def test_a_job_that_does_not_stop_is_cancelled(stand_in: StandIn, directory: RunDirectory) -> None:
    (stand_in.answers.parent / "scancel").write_text(
        STAND_IN.replace("exit", '[ "$1" = 12 ] && echo "CANCELLED|None" > "$here/squeue.out"\nexit')
    )
    stand_in.says("squeue", "RUNNING|None\n")
    write_launched(directory, InSlurm(job="12", cluster="alps"))
    run = Run.open(directory.path)
    assert run.status().phase is Phase.IDLE
    run.end(grace=0.0)
    assert (directory.control / "stop").exists()
    assert "scancel 12" in stand_in.calls
    assert "was cancelled before it began" in (run.status().error or "")


# ---- A real Slurm ----------------------------------------------------------------------------------------------------

# A Python that begins jobs as ours does, and in the place of the trainer says what it was given, until asked to stop.
STUB = f"""#!/bin/bash
if [ "$2" = ipytune.runs.launch.job ]; then exec {sys.executable} "$@"; fi
for run_dir; do :; done
echo "$SLURM_PROCID/$SLURM_STEP_NUM_TASKS $* ${{MLFLOW_TRACKING_TOKEN:+with a token}}" >> "$run_dir/started"
[ "$SLURM_PROCID" = 0 ] || exit 0
echo '{{"phase": "training", "step": 1}}' > "$run_dir/status.json"
until [ -f "$run_dir/control/stop" ]; do sleep 0.1; done
echo '{{"ended_by": "'"$(cat "$run_dir/control/stop")"'"}}' > "$run_dir/report.json"
echo '{{"phase": "stopped", "step": 1}}' > "$run_dir/status.json"
"""


@pytest.fixture
def cluster(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    for name, value in slurm_cluster.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(Path(ipytune.__file__).parents[1]))  # jobs run in other directories
    slurm.local_cluster.cache_clear()
    yield slurm_cluster
    slurm.local_cluster.cache_clear()


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    (tmp_path / "train.jsonl").write_text("{}\n")  # nobody but a trainer reads it
    return RunConfig(train_file=tmp_path / "train.jsonl", max_steps=3)


@pytest.fixture
def stub(tmp_path: Path) -> str:
    (tmp_path / "stub").write_text(STUB)
    (tmp_path / "stub").chmod(0o755)
    return str(tmp_path / "stub")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.1)


@pytest.mark.slurm
def test_two_nodes_meet_in_torchrun_and_the_walltime_asks_to_stop(
    cluster: SlurmCluster, config: RunConfig, stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")  # of a user whose other jobs begin with nothing
    settings = SlurmSettings(nodes=2, gpus_per_node=2, cpus_per_node=2)
    run = Run.start(config, tmp_path / "a run", launcher=Sbatch(settings, python=stub))
    launched = read_launched(RunDirectory(run.path))
    assert isinstance(launched, InSlurm)
    until(lambda: run.status().phase is Phase.TRAINING)
    until(lambda: len((run.path / "started").read_text().splitlines()) == 2)
    started = (run.path / "started").read_text()
    assert "--nnodes=2 --nproc-per-node=2" in started and "--rdzv-endpoint=nid00000" in started
    assert started.count("with a token") == 2
    assert TOKEN not in cluster.run("scontrol", "show", "job", "--details", launched.job).stdout
    assert f"Slurm job {launched.job} on oberalp" in run.runner

    cluster.run("scancel", "--batch", "--signal=TERM", launched.job)  # what Slurm does two minutes before the walltime
    assert run.wait(LIMIT)["ended_by"] == "walltime"
    until(lambda: cluster.job_state(launched.job) in {"COMPLETED", ""})


@pytest.mark.slurm
def test_a_cancelled_job_is_an_error_with_its_reason(
    cluster: SlurmCluster, config: RunConfig, stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduled, "ASK_SECONDS", 0.5)
    run = Run.start(config, tmp_path / "run", launcher=Sbatch(SlurmSettings(), python=stub))
    until(lambda: run.status().phase is Phase.TRAINING)
    job = read_launched(RunDirectory(run.path))
    assert isinstance(job, InSlurm)
    cluster.run("scancel", job.job)
    opened = Run.open(run.path)
    until(lambda: opened.status().phase is Phase.ERROR)
    assert "was cancelled while training, at step 1" in (opened.status().error or "")


@pytest.mark.slurm
def test_a_queued_job_is_withdrawn(cluster: SlurmCluster, config: RunConfig, stub: str, tmp_path: Path) -> None:
    cluster.drain("nid000001")
    try:
        waiting = SlurmSettings(nodes=cluster.spec.nodes)
        run = Run.start(config, tmp_path / "run", launcher=Sbatch(waiting, python=stub))
        run.stop()
        opened = Run.open(run.path)
        until(lambda: opened.status().phase is Phase.ERROR)
        assert "was cancelled before it began" in (opened.status().error or "")
    finally:
        cluster.resume("nid000001")


@pytest.mark.slurm
def test_a_real_training_by_an_exported_batch_script(cluster: SlurmCluster, tmp_path: Path) -> None:
    from tests.ipytune.lora import tiny

    config = RunConfig(
        model=str(tiny.save(tmp_path / "model")),
        train_file=tiny.write_conversations(tmp_path / "train.jsonl", 8),
        lora=LoraSettings(rank=4),
        max_steps=3,
        checkpoint_every=0,
        threads=1,
    )
    main = export(config, "sbatch", tmp_path / "export", slurm=SlurmSettings(cpus_per_node=1))
    main.write_text(main.read_text().replace("PYTHON=python3", f"PYTHON={sys.executable}"))
    for _ in range(2):  # submitted again, it finds nothing left to train
        done = subprocess.run(["sbatch", "--wait", main.name], cwd=main.parent, check=False, timeout=2 * LIMIT)
        assert done.returncode == 0, "".join(path.read_text() for path in main.parent.glob("train-*.log"))
    run = Run.open(main.parent / "run")
    assert (run.status().phase, run.status().step) == (Phase.COMPLETED, 3)
    assert (run.adapter / "adapter_model.safetensors").is_file()
    assert isinstance(read_launched(RunDirectory(run.path)), InSlurm)
    assert [event["kind"] for event in run.events()[0]].count("metric") == 3
