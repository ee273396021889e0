"""The report of a continued run is of the whole run, and so is what a panel shows when it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipytune.lora import loop
from ipytune.lora.config import RunConfig
from ipytune.runs.directory import RunDirectory
from ipytune.runs.status import Status
from tests.ipytune.lora.test_loop import base, config, ending, go, losses

__all__ = ["base", "config"]  # fixtures

FACTS = ("first_loss", "loss", "eval_loss", "step", "tokens")


def test_a_continued_run_reports_what_an_uninterrupted_one_does(config: RunConfig, tmp_path: Path) -> None:
    whole = go(config, tmp_path / "whole").read_report()
    go(config, tmp_path / "parts", ending(after=5))
    parts = go(config, tmp_path / "parts").read_report()
    assert {fact: parts[fact] for fact in FACTS} == {fact: whole[fact] for fact in FACTS}


def test_a_continuation_that_comes_to_no_step_keeps_what_was_known(config: RunConfig, tmp_path: Path) -> None:
    before = go(config, tmp_path / "run", ending(after=5)).read_report()
    directory, shown = RunDirectory(tmp_path / "run"), list[Status]()

    def stop_at_once() -> str:
        shown.append(directory.read_status())
        return "stop"

    after = go(config, directory.path, stop_at_once).read_report()
    assert before["eval_loss"] is not None  # of the checkpoint at step 3
    assert {fact: after[fact] for fact in FACTS} == {fact: before[fact] for fact in FACTS}
    assert (shown[0].loss, shown[0].eval_loss) == (losses(directory)[-1][1], before["eval_loss"])


def test_steps_that_are_done_again_are_reported_as_done_again(config: RunConfig, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill() -> str | None:
        if directory.read_status().step == 2:
            raise Killed
        return None

    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(Killed):  # before the first checkpoint: everything begins anew
        go(config, directory.path, kill)
    report = go(config, directory.path).read_report()
    assert (report["first_loss"], report["loss"]) == (losses(directory)[0][1], losses(directory)[-1][1])
    assert [step for step, _ in losses(directory)] == list(range(1, 9))


def test_peak_memory_is_the_highest_of_all_processes(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for peak, after in ((7 * 10**9, 5), (10**9, 99)):
        monkeypatch.setattr(loop, "peak_memory_bytes", lambda device, peak=peak: peak)
        directory = go(config, tmp_path / "run", ending(after=after))
        assert directory.read_report()["peak_memory_bytes"] == directory.read_status().memory_bytes == 7 * 10**9
