"""What is followed of a run: each loss once, at the step at which it was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipytune.runs import Phase, Run, Status
from ipytune.runs.directory import RunDirectory, evaluations
from ipytune.widgets.follow import Follower


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create("train_file: t.jsonl\n")
    directory.write_status(Status(phase=Phase.STOPPED, step=5, eval_loss=2.0))
    return directory


def followed(directory: RunDirectory) -> tuple[tuple[int, float], ...]:
    """The held-out losses of a panel that looks, and that both readers of them agree on."""
    found = Follower(Run.open(directory.path)).look().evals
    assert dict(found) == evaluations(directory.read_events()[0])
    return found


def test_held_out_losses_are_those_of_evaluations(directory: RunDirectory) -> None:
    directory.append_event("evaluation", step=2, eval_loss=2.0, best=True)
    directory.append_event("checkpoint", step=4, path="step-4", eval_loss=2.0)  # the last one known, of step 2
    assert followed(directory) == ((2, 2.0),)  # and the status, at step 5, has measured none either


def test_a_step_that_is_measured_again_has_one_held_out_loss(directory: RunDirectory) -> None:
    for loss in (3.0, 2.5):  # at a checkpoint, and once more at the end of the time
        directory.append_event("evaluation", step=4, eval_loss=loss)
    assert followed(directory) == ((4, 2.5),)


def test_steps_that_are_done_again_are_measured_again(directory: RunDirectory) -> None:
    for step, loss in ((2, 3.0), (4, 2.5)):
        directory.append_event("evaluation", step=step, eval_loss=loss)
    follower = Follower(Run.open(directory.path))
    assert follower.look().evals == ((2, 3.0), (4, 2.5))
    directory.append_event("resumed", step=3)
    assert follower.look().evals == followed(directory) == ((2, 3.0),)
    directory.append_event("evaluation", step=4, eval_loss=2.0)
    assert follower.look().evals == followed(directory) == ((2, 3.0), (4, 2.0))
