"""A batch as a Slurm array: what is submitted, what Slurm's answers mean, and all of it on a real cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ipytune
from ipytune.batch import on_slurm, scripts
from ipytune.batch import submit as module
from ipytune.batch.directory import BatchDirectory, State, Submission
from ipytune.batch.on_slurm import read_sacct, read_squeue
from ipytune.batch.overview import Overview, Row
from ipytune.batch.submit import cancel, new_batch, read_notebook, resume, submit
from ipytune.runs.launch import SlurmSettings, slurm
from tests.clusters.slurm import SlurmCluster
from tests.ipytune.batch import tiny

LIMIT = 240.0


def batch_of(tmp_path: Path, sets: list[dict], **more: object) -> tuple:
    content, names = read_notebook(tiny.write(tmp_path / "tiny.ipynb"))
    more = {"on": "slurm", "slurm": SlurmSettings(cpus_per_node=1), "cwd": str(tmp_path), **more}
    return new_batch(tmp_path / "tiny.ipynb", content, sets=tuple(sets), **more), content, names


def test_the_script_is_shell_and_holds_no_parameter(tmp_path: Path) -> None:
    settings = SlurmSettings(account="g123", srun_options=("--environment=py torch",), gpus_per_node=4)
    batch, _, _ = batch_of(tmp_path, [{"NAME": "$(marker)"}] * 3, slurm=settings, at_once=2)
    submission = Submission(sets=(0, 2))
    script = scripts.array_script(settings, batch, submission, "/scratch/ada's runs/$(id)", "/opt/my env/python")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "marker" not in script
    assert "#SBATCH --account=g123\n" in script and "#SBATCH --signal=B:TERM@120\n" in script
    assert "BATCH='/scratch/ada'\"'\"'s runs/$(id)'" in script and "SRUN_OPTIONS=('--environment=py torch')" in script
    last = max(n for n, line in enumerate(script.splitlines()) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") or not line for line in script.splitlines()[:last])
    command = scripts.sbatch(batch, submission, "/runs/100%a")
    assert "--array=0,2%2" in command and "--output=/runs/100%%a/%3a/log" in command
    with pytest.raises(ValueError, match="backslash"):
        scripts.sbatch(batch, submission, "/runs/a\\b")


def test_what_slurm_says_of_an_array() -> None:
    queued = read_squeue(0, "0|RUNNING|None\n1|PENDING|JobArrayTaskLimit\nN/A|RUNNING|None\n", "")
    assert queued is not None and [queued[n].words() for n in (0, 1)] == ["running", "waiting: JobArrayTaskLimit"]
    assert read_squeue(1, "", "slurm_load_jobs error: Invalid job id specified") == {}
    assert read_squeue(1, "", "Unable to contact slurm controller") is None
    ended = read_sacct(0, "12_0|COMPLETED|0:0\n12_1|CANCELLED by 0|0:15\n12_[2-3%2]|PENDING|0:0\n12_4|FAILED|1:0\n")
    assert {number: state.ending() for number, state in ended.items()} == {
        0: "ended without a last word",
        1: "was cancelled",
        4: "failed with exit code 1",
    }
    assert read_sacct(1, "Slurm accounting storage is disabled") == {}


def test_an_array_is_found_by_its_comment() -> None:
    said = "11|(null)\n12|ipytune-0a1b2c3d\n12|ipytune-0a1b2c3d\n13|ipytune-ffffffff\n"
    assert on_slurm.find(said, "0a1b2c3d") == "12"
    assert on_slurm.find(said, "00000000") is None


# ---- A real Slurm ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SlurmCluster]:
    for name, value in slurm_cluster.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(Path(ipytune.__file__).parents[1]))  # jobs run in other directories
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    slurm.local_cluster.cache_clear()
    yield slurm_cluster
    slurm.local_cluster.cache_clear()


def follow(directory: BatchDirectory, condition: Callable[[list[Row]], bool]) -> list[Row]:
    overview, deadline = Overview(directory), time.monotonic() + LIMIT
    while not condition(rows := overview.rows(interval=1.0)):
        assert time.monotonic() < deadline, f"{rows}\n{''.join(p.read_text() for p in directory.path.glob('*/log'))}"
        time.sleep(0.2)
    return rows


def final(rows: list[Row]) -> bool:
    return all(row.state.final for row in rows)


@pytest.mark.slurm
def test_four_sets_two_at_once_and_the_failed_one_again(cluster: SlurmCluster, tmp_path: Path) -> None:
    sets = [{"RANK": 1}, {"RANK": 2}, {"RANK": 3, "FAIL": True}, {"RANK": 4}]
    directory = BatchDirectory(tmp_path / "a batch")
    submission = submit(directory, *batch_of(tmp_path, sets, at_once=2))
    assert submission.slurm is not None
    assert "ArrayTaskThrottle=2" in cluster.run("scontrol", "show", "job", submission.slurm.job).stdout
    rows = follow(directory, final)
    assert [row.state for row in rows] == [State.DONE, State.DONE, State.FAILED, State.DONE]
    assert rows[2].words.startswith("ValueError: the rank does not fit (code cell ")
    assert [(row.metrics or {}).get("deep") for row in rows] == [{"rank": 1}, {"rank": 2}, None, {"rank": 4}]

    (directory.path / "002" / "mended").touch()
    again, _ = resume(directory)
    assert again is not None and again.sets == (2,)
    assert [row.state for row in follow(directory, final)] == [State.DONE] * 4
    assert (directory.path / "002/results/begun").read_text() == "begun\n"  # the cells before it were not run again


@pytest.mark.slurm
def test_the_walltime_s_notice_and_a_cancellation_keep_what_was_done(
    cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = BatchDirectory(tmp_path / "batch")
    submit(directory, *batch_of(tmp_path, [{"WAIT": True}, {"WAIT": True}]))
    begun = [directory.path / name / "results/begun" for name in ("000", "001")]
    follow(directory, lambda rows: all(path.exists() for path in begun))
    batch = directory.read()
    directory.write(batch.with_submission(batch.submissions[0].model_copy(update={"slurm": None})))  # it was lost
    said = directory.set(0, 2).read_status()
    assert said is not None and said.job is not None
    cluster.run("scancel", "--batch", "--signal=TERM", said.job.job)  # what Slurm does two minutes before the walltime
    rows = follow(directory, lambda rows: rows[0].state.final)
    assert [row.state for row in rows] == [State.OUT_OF_TIME, State.RUNNING]

    monkeypatch.setattr(module, "COURTESY_SECONDS", 30.0)
    assert cancel(directory) == [1]
    assert [row.state for row in Overview(directory).rows()] == [State.OUT_OF_TIME, State.CANCELLED]
    assert cluster.run("squeue", "--noheader", "--states=PENDING,RUNNING,COMPLETING").stdout.strip() == ""

    for path in begun:
        (path.parents[1] / "go").touch()
    again, _ = resume(directory)
    assert again is not None and again.sets == (0, 1)
    assert [row.state for row in follow(directory, final)] == [State.DONE, State.DONE]


@pytest.mark.slurm
def test_a_worker_killed_without_notice_takes_its_set_with_it(cluster: SlurmCluster, tmp_path: Path) -> None:
    directory = BatchDirectory(tmp_path / "batch")
    submit(directory, *batch_of(tmp_path, [{"WAIT": True}]))
    follow(directory, lambda rows: rows[0].state is State.RUNNING)
    said = directory.set(0, 1).read_status()
    assert said is not None
    os.kill(said.process.pid, signal.SIGKILL)  # the nodes are processes of this machine
    rows = follow(directory, final)
    assert rows[0].state is State.FAILED and rows[0].words.startswith("its job failed")
