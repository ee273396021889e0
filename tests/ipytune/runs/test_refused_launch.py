"""A launcher that refuses leaves nothing that looks like a run."""

import json
from pathlib import Path

import pytest

from ipytune.lora.config import RunConfig
from ipytune.runs import Run
from ipytune.runs.directory import RunDirectory
from ipytune.runs.launch import LaunchError
from ipytune.runs.launch.base import Handle
from ipytune.runs.library import runs


class Refusing:
    def start(self, directory: RunDirectory) -> Handle:
        raise LaunchError("no such partition")


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    return RunConfig(model="some-model", train_file=tmp_path / "train.jsonl")


def test_a_directory_that_was_made_for_it_is_gone(tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(LaunchError, match="no such partition"):
        Run.start(config, tmp_path / "runs" / "a", launcher=Refusing())
    assert not (tmp_path / "runs" / "a").exists() and runs(tmp_path / "runs") == []


def test_what_was_there_stays(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(LaunchError):
        Run.start(config, tmp_path / "a", launcher=Refusing())
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine" and not (tmp_path / "a" / "config.yaml").exists()
