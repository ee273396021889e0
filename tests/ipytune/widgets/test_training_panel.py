"""The training panel shows what its directory says, whoever wrote it; its buttons are its methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ipytune.lora.config import RunConfig
from ipytune.runs import Phase, Run, RunFailed, Status
from ipytune.runs.directory import RunDirectory
from ipytune.widgets import TrainingPanel
from tests.browser.lab import until


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    data = tmp_path / "train.jsonl"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    data.write_text(json.dumps({"messages": messages}) + "\n")
    return RunConfig(model="some-model", train_file=data)


@pytest.fixture
def write(tmp_path: Path, config: RunConfig) -> Callable[..., RunDirectory]:
    """A run directory as the training process writes it."""

    def written(phase: Phase, steps: int = 0, **fields: object) -> RunDirectory:
        directory = RunDirectory(tmp_path / "run")
        if not directory.exists:
            directory.create(config.pinned().as_yaml())
        for step in range(1, steps + 1):
            directory.append_event("metric", step=step, loss=4.0 / step)
        directory.write_status(Status(phase=phase, step=steps, total_steps=100, loss=4.0 / max(steps, 1), **fields))
        return directory

    return written


def test_nothing_has_begun(tmp_path: Path, config: RunConfig) -> None:
    panel = TrainingPanel(config, tmp_path / "run")
    assert (panel.phase, panel.can_start, panel.can_stop) == ("idle", True, False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="Nothing was started"):
        panel.wait()


def test_a_completed_run_is_shown_whole_when_opened_again(
    tmp_path: Path, config: RunConfig, write: Callable[..., RunDirectory]
) -> None:
    directory = write(Phase.COMPLETED, steps=50, eval_loss=0.123)
    directory.write_report({"steps": 50})
    panel = TrainingPanel(config, tmp_path / "run")
    assert (panel.phase, panel.progress, panel.can_start, panel.can_stop) == ("completed", 100.0, False, False)
    assert len(panel.points) == 12 * 50
    assert ["Held-out loss", "0.123"] in panel.facts
    assert panel.run() == {"steps": 50}  # nothing is trained again
    assert TrainingPanel(Run.open(tmp_path / "run")).points == panel.points


def test_other_settings_in_the_directory_are_refused(
    tmp_path: Path, config: RunConfig, write: Callable[..., RunDirectory]
) -> None:
    write(Phase.COMPLETED)
    with pytest.raises(ValueError, match="learning_rate"):
        TrainingPanel(config.model_copy(update={"learning_rate": 0.5}), tmp_path / "run")


def test_a_failure_is_shown_with_its_log_and_raised_by_wait(
    tmp_path: Path, config: RunConfig, write: Callable[..., RunDirectory]
) -> None:
    directory = write(Phase.ERROR, steps=3, error="out of memory <script>")
    directory.log.write_text("Traceback\nMemoryError: <b>\n")
    panel = TrainingPanel(config, tmp_path / "run")
    assert panel.problem["why"] == "out of memory <script>"
    assert "MemoryError" in panel.problem["log"]
    assert panel.start_label == "Continue" and panel.can_start
    html = panel.static_html()
    assert "&lt;script&gt;" in html and "<script>" not in html and "<b>\n" not in html
    with pytest.raises(RunFailed, match="out of memory"):
        panel.wait()


def test_steps_that_were_done_again_appear_once(
    tmp_path: Path, config: RunConfig, write: Callable[..., RunDirectory]
) -> None:
    directory = write(Phase.STOPPED, steps=10)
    directory.append_event("resumed", step=6)
    directory.append_event("metric", step=7, loss=0.5)
    assert len(TrainingPanel(config, tmp_path / "run").points) == 12 * 7


def test_a_start_that_fails_is_shown_in_the_panel(tmp_path: Path, config: RunConfig) -> None:
    config.train_file.unlink()
    panel = TrainingPanel(config, tmp_path / "run")
    panel._on_message(panel, {"do": "start"}, [])  # what the button sends
    assert "there is no file" in panel.problem["what"]
    panel._on_message(panel, {"do": "no such action"}, [])
    panel._on_message(panel, "nonsense", [])


def test_the_bundle_has_a_picture_and_text_beside_the_live_view(
    tmp_path: Path, config: RunConfig, write: Callable[..., RunDirectory]
) -> None:
    write(Phase.STOPPED, steps=20)
    data, _ = TrainingPanel(config, tmp_path / "run")._repr_mimebundle_()
    assert "<svg" in data["text/html"] and "stopped" in data["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_a_run_that_goes_on_is_followed_and_can_be_stopped(
    tmp_path: Path, config: RunConfig, write: Callable[..., RunDirectory]
) -> None:
    directory = write(Phase.TRAINING, steps=2)
    panel = TrainingPanel(config, tmp_path / "run")
    panel.stop()
    assert directory.asked("stop") and panel.phase == "stopping" and not panel.can_stop
    write(Phase.STOPPED, steps=3)
    until(lambda: panel.phase == "stopped", "the end of the run in the panel", 5)


def test_answers_while_it_learns_are_shown_the_last_of_each_question(
    tmp_path: Path, config: RunConfig, write: Callable[..., RunDirectory]
) -> None:
    directory = write(Phase.COMPLETED, steps=4)
    for step, answer in ((2, "early"), (4, "<b>late</b>")):
        directory.append_event("sample", step=step, prompt="how many?", answer=answer)
    directory.write_report({"steps": 4})
    panel = TrainingPanel(config, tmp_path / "run")
    assert panel.samples == [{"step": 4, "prompt": "how many?", "answer": "<b>late</b>"}]
    assert "&lt;b&gt;late" in panel.static_html() and "<b>late" not in panel.static_html()


def test_a_run_given_as_such_is_followed_too(tmp_path: Path, write: Callable[..., RunDirectory]) -> None:
    write(Phase.TRAINING, steps=2)
    panel = TrainingPanel(Run.open(tmp_path / "run"))
    write(Phase.STOPPED, steps=3)
    until(lambda: panel.phase == "stopped", "the end in the panel", 10)
