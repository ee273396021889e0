"""The commands as they are typed: what they print, refuse and return."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipytune.batch.directory import BatchDirectory
from ipytune.cli import app
from tests.ipytune.batch import tiny


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    tiny.write(tmp_path / "tiny.ipynb")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit"], "Name a notebook, or a batch to go on with"),
        (["submit", "none.ipynb"], "There is no notebook none.ipynb"),
        (["submit", "tiny.ipynb", "-p", "RNK", "8"], "Did you mean RANK?"),
        (["submit", "tiny.ipynb", "-p", "RANK", "eight"], "a whole number is expected"),
        (["submit", "tiny.ipynb", "--set", "none.csv"], "none.csv"),
        (["submit", "tiny.ipynb", "--job", "partition=debug"], "--on slurm or --on kubernetes"),
        (["submit", "tiny.ipynb", "--on", "slurm", "--job", "partition=a b"], "partition"),
        (["submit", "tiny.ipynb", "--on", "kubernetes"], "image"),
        (["submit", "tiny.ipynb", "--cwd", "none"], "is no directory"),
        (["submit", "--resume", "none"], "holds no batch"),
        (["submit", "tiny.ipynb", "--resume", "x"], "only --wait"),
        (["results", "none"], "holds no batch"),
        (["cancel", "none"], "holds no batch"),
    ],
)
def test_what_is_refused_leaves_nothing(here: Path, arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and words in done.output
    assert [path.name for path in here.iterdir()] == ["tiny.ipynb"]


def test_a_parameter_is_two_words() -> None:
    done = CliRunner().invoke(app, ["submit", "tiny.ipynb", "-p", "RANK"])
    assert done.exit_code == 2 and "NAME and VALUE are expected" in done.output


def test_a_dry_run_prints_the_script_and_makes_nothing(here: Path) -> None:
    arguments = ["submit", "tiny.ipynb", "--grid", "RANK=8,16", "--on", "slurm", "--job", "account=g1", "--dry-run"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "#SBATCH --account=g1\n" in done.stdout and "--array=0-1" in done.stdout
    assert [path.name for path in here.iterdir()] == ["tiny.ipynb"]


def test_a_sweep_in_this_session_from_start_to_table(here: Path) -> None:
    (here / "sets.csv").write_text("RANK,FAIL\n8,\n16,true\n")
    arguments = ["submit", "tiny.ipynb", "--set", "sets.csv", "-p", "RATE", "2e-4", "--at-once", "2", "--dir", "sweep"]
    done = CliRunner().invoke(app, [*arguments, "--wait"])
    assert done.exit_code == 1 and "1 done, 1 failed" in done.output, done.output
    assert "ValueError: the rank does not fit" in done.output and "0.0016" in done.output
    batch = BatchDirectory("sweep").read()
    assert batch.sets == ({"RATE": 2e-4, "RANK": 8}, {"RATE": 2e-4, "RANK": 16, "FAIL": True})

    told = CliRunner().invoke(app, ["results", "sweep", "--json", "--sort", "-RANK"])
    assert [(one["set"], one["state"]) for one in json.loads(told.stdout)] == [(1, "failed"), (0, "done")]
    told = CliRunner().invoke(app, ["results", "sweep", "--csv", "--metric", "deep.rank"])
    assert told.stdout.splitlines()[0] == "set,RANK,FAIL,state,seconds,deep.rank,error"
    assert CliRunner().invoke(app, ["results", "sweep", "--sort", "zebra"]).exit_code == 1

    (here / "sweep/001/mended").touch()
    done = CliRunner().invoke(app, ["submit", "--resume", "sweep", "--wait"])
    assert done.exit_code == 0 and "2 done" in done.output, done.output
    assert (here / "sweep/001/results/begun").read_text() == "begun\n"  # only what had not ended well was run again
    assert "Nothing to go on with: 2 done" in CliRunner().invoke(app, ["submit", "--resume", "sweep"]).output
    assert "Nothing to cancel" in CliRunner().invoke(app, ["cancel", "sweep"]).output
