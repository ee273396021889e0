"""A folder of runs: each is listed whatever state it is in, and deleting removes what runs write and nothing else."""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ipytune.cli_runs import app
from ipytune.runs.directory import STOP, RunDirectory
from ipytune.runs.library import runs, summary
from ipytune.runs.process import identify
from ipytune.runs.removal import delete, plan_removal
from ipytune.runs.status import Phase
from tests.ipytune.runs.written import run_in


def test_runs_are_listed_newest_first_with_their_facts(tmp_path: Path) -> None:
    run_in(tmp_path / "old", day=3)
    run_in(tmp_path / "new", day=5, steps=4, phase=Phase.STOPPED, model="some-model")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/config.yaml").write_text("train_file: mine.jsonl\n")
    (tmp_path / "readme.txt").write_text("")
    new, old = runs(tmp_path)
    assert (new.name, old.name) == ("new", "old")
    assert (new.state, new.step, new.total_steps, new.loss, new.eval_loss) == ("stopped", 4, 4, 1.0, 1.25)
    assert (new.model, new.data, new.seconds, new.adapter) == ("some-model", tmp_path / "train.jsonl", 2.0, True)
    assert new.started is not None and new.started.day == 5
    assert new.size == sum(file.stat().st_size for file in new.path.rglob("*") if file.is_file())
    assert new.problem is None


def test_an_absent_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        runs(tmp_path / "absent")


FILES = ("config.yaml", "status.json", "report.json", "events.jsonl", "process.json")


@settings(max_examples=30, deadline=None)
@given(file=st.sampled_from(FILES), content=st.binary(max_size=60) | st.sampled_from([b"[]", b"{}", b"null", b'"x"']))
def test_a_damaged_run_is_listed_and_hides_no_other(file: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_in(Path(folder) / "whole")
        (run_in(Path(folder) / "damaged").path / file).write_bytes(content)
        assert {run.name for run in runs(folder)} == {"whole", "damaged"}


@pytest.mark.parametrize(("file", "content"), [("config.yaml", "["), ("config.yaml", None), ("status.json", '{"pha')])
def test_what_is_damaged_is_named(tmp_path: Path, file: str, content: str | None) -> None:
    directory = run_in(tmp_path / "run")
    if content is None:
        (directory.path / file).unlink()
    else:
        (directory.path / file).write_text(content)
    (run,) = runs(tmp_path)
    assert run.state == "damaged"
    assert f"{file} cannot be read" in (run.problem or "")


def test_a_directory_that_was_made_and_never_used_is_said_to_be_so(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create("train_file: t.jsonl\n")
    os.utime(directory.config, (0, 0))
    assert summary(directory.path).problem == "made, but never started"
    assert len(delete(directory.path).removed) == 1
    assert not directory.path.exists()


def test_a_long_run_costs_no_more_than_a_short_one(tmp_path: Path) -> None:
    directory = run_in(tmp_path / "run", steps=2)
    head = directory.events.read_bytes()
    with directory.events.open("r+b") as events:  # a sparse gigabyte
        events.seek(2**30)
        events.write(b"\n" + head)
    tracemalloc.start()
    found = summary(directory.path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.seconds, found.started and found.started.day) == (1.0, 1)
    assert peak < 5_000_000


# --- deleting --------------------------------------------------------------------------------------------------------


def test_all_that_a_run_wrote_is_deleted(tmp_path: Path) -> None:
    directory = run_in(tmp_path / "run")
    directory.write_process(identify(os.getpid()))
    directory.log.write_text("said\n")
    directory.ask(STOP)
    for name in (
        "checkpoints/step-2/state.pt",
        "checkpoints/step-2/adapter_model.safetensors",
        "checkpoints/.step-4.123/adapter_config.json",
        "checkpoints/first_adapter.safetensors",
        ".adapter.77/adapter_config.json",
        ".status.json.77",
        "tensorboard/events.out.tfevents.1.host",
        "mlflow.json",
        "launch/job.sbatch",
        "adapter/README.md",
    ):
        (directory.path / name).parent.mkdir(parents=True, exist_ok=True)
        (directory.path / name).write_text("x")
    (directory.checkpoints / "step-2/manifest.json").write_text('{"state.pt": "0", "extra.bin": "0"}')
    (directory.checkpoints / "step-2/extra.bin").write_text("x")
    assert plan_removal(directory.path).kept == ()
    delete(directory.path)
    assert not directory.path.exists()


def test_what_a_run_does_not_write_is_kept_and_named(tmp_path: Path) -> None:
    outside = tmp_path / "precious.txt"
    outside.write_text("x")
    directory = run_in(tmp_path / "run")
    mine = ("notes.md", "adapter/mine.txt", "checkpoints/old/state.pt", "merged/model.safetensors")
    for name in mine:
        (directory.path / name).parent.mkdir(exist_ok=True)
        (directory.path / name).write_text("x")
    (directory.path / "link").symlink_to(tmp_path)
    (directory.path / "empty").mkdir()
    kept = delete(directory.path).kept
    assert sorted(map(str, kept)) == sorted((*mine, "link"))
    assert outside.exists()
    left = {str(path.relative_to(directory.path)) for path in directory.path.rglob("*") if not path.is_dir()}
    assert left == set(mine)
    assert (directory.path / "empty").is_dir() and not (directory.path / "control").exists()


def test_a_run_that_trains_is_not_deleted(tmp_path: Path) -> None:
    directory = run_in(tmp_path / "run", phase=Phase.TRAINING)
    process = identify(os.getpid())
    directory.write_process(process)
    with pytest.raises(ValueError, match=rf"is training \(.*{process.pid}.*{process.host}.*nothing is deleted"):
        delete(directory.path)
    directory.status.write_text("{torn")
    with pytest.raises(ValueError, match="nothing is deleted"):
        delete(directory.path)
    assert directory.exists


@pytest.mark.parametrize("make", ["nothing", "config only", "link"])
def test_a_directory_that_is_no_run_is_not_deleted(tmp_path: Path, make: str) -> None:
    path = tmp_path / "run"
    if make == "link":
        path.symlink_to(run_in(tmp_path / "real").path)
    elif make == "config only":
        path.mkdir()
        (path / "config.yaml").write_text("train_file: mine.jsonl\n")
    with pytest.raises(ValueError, match="holds no run|is a link"):
        delete(path)
    assert make == "nothing" or (path / "config.yaml").exists()


def test_an_interrupted_deletion_can_be_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run_in(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rmdir", lambda path: (_ for _ in ()).throw(OSError("interrupted")))
        with pytest.raises(OSError, match="interrupted"):
            delete(directory.path)
    assert directory.exists
    delete(directory.path)
    assert not directory.path.exists()


# --- the command line ------------------------------------------------------------------------------------------------


def command(*arguments: object, answer: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer, env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_the_command_lists_shows_and_deletes(tmp_path: Path) -> None:
    directory = run_in(tmp_path / "first", learning_rate=1e-3)
    (tmp_path / "evil\x1b[31m").mkdir()
    (run_in(tmp_path / "broken").path / "config.yaml").write_text("[")
    code, output = command("list", tmp_path)
    assert code == 0 and "first" in output and "broken: config.yaml cannot be read" in output
    code, output = command("show", directory.path)
    assert code == 0 and "learning_rate" in output and "1.6667" in output
    assert "warmup_steps" not in output  # a default
    code, output = command("delete", directory.path, answer="n\n")
    assert code == 1 and directory.exists
    code, output = command("delete", directory.path, "--yes")
    assert code == 0 and not directory.path.exists()
    code, output = command("delete", directory.path, "--yes")
    assert code == 1 and "holds no run" in output
    assert "There is no folder" in command("list", tmp_path / "absent")[1]
    assert "holds no run" in command("show", tmp_path / "absent")[1]


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    run_in(tmp_path / "a\x1b]0;title\x07[bold]")
    code, output = command("list", tmp_path)
    assert code == 0 and "\x1b]0" not in output and "[bold]" in output
