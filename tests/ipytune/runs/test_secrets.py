"""A secret of the environment is in nothing that a run leaves: files, exports, notebooks, process lists."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipytune.cli import app
from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.runs import Phase, Run
from ipytune.runs.export import FORMS
from ipytune.widgets import TrainingPanel
from tests.ipytune.lora import tiny

LIMIT = 180.0
MARKER = "marker0of0a0secret"
SECRETS = {
    "HF_TOKEN": MARKER,
    "OPENAI_API_KEY": MARKER,
    "MLFLOW_TRACKING_TOKEN": MARKER,
    "MLFLOW_TRACKING_URI": f"http://user:{MARKER}@127.0.0.1:9",  # nobody listens: its errors are told, too
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
TRACKERS = [name for name, package in (("tensorboard", "tensorboardX"), ("mlflow", "mlflow")) if find_spec(package)]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def holding_it(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and MARKER.encode() in file.read_bytes()]


def processes(what: str) -> dict[int, bytes]:
    """Of each process that can be asked: its command line, or its environment."""
    found = {}
    for file in Path("/proc").glob(f"[0-9]*/{what}"):
        try:
            found[int(file.parent.name)] = file.read_bytes()
        except OSError:
            pass  # ended meanwhile, or somebody else's
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that trains, and whose environment holds secrets."""
    folder = tmp_path_factory.mktemp("secrets")
    config = RunConfig(
        model=str(tiny.save(folder / "model")),
        train_file=tiny.write_conversations(folder / "train.jsonl", 16),
        eval_file=tiny.write_conversations(folder / "eval.jsonl", 4, first=100),
        lora=LoraSettings(rank=4),
        sample_prompts=("w1 w2",),
        max_steps=100_000,
        checkpoint_every=5,
        threads=1,
    ).model_copy(update={"track": tuple(TRACKERS)})
    with pytest.MonkeyPatch.context() as environment:
        for name, value in SECRETS.items():
            environment.setenv(name, value)
        run = Run.start(config, folder / "runs/run")
        try:
            until(lambda: run.status().step > 5 or run.status().phase.final)
            yield run
        finally:
            run.end(grace=60)


def test_the_trainer_has_it_and_no_command_line_does(run: Run) -> None:
    status = run.status()
    assert status.phase is Phase.TRAINING and status.pid is not None, run.log_tail()
    assert MARKER.encode() in processes("environ")[status.pid]
    assert not {pid: line for pid, line in processes("cmdline").items() if MARKER.encode() in line}


def test_a_notebook_with_the_panel_does_not_hold_it(run: Run) -> None:
    panel = TrainingPanel(run)
    bundle, metadata = panel._repr_mimebundle_()
    assert "text/html" in bundle
    assert MARKER not in json.dumps([bundle, metadata, panel.get_state()], default=repr)


@pytest.mark.parametrize("form", FORMS)
def test_no_export_holds_it(run: Run, tmp_path: Path, form: str) -> None:
    job = ["--job", "image=ipytune:1", "--job", "claim=runs", "--job", "secret=tokens"] if form == "kubernetes" else []
    done = CliRunner().invoke(app, ["export", str(run.path), "--to", form, "--out", str(tmp_path / "out"), *job])
    assert done.exit_code == 0, done.output
    assert MARKER not in done.output
    assert any((tmp_path / "out").iterdir()) and not holding_it(tmp_path / "out")


def test_the_run_directory_does_not_hold_it_when_it_has_ended(run: Run) -> None:
    run.stop()
    assert run.wait(LIMIT)["ended_by"] == "stop"
    kinds = {event["kind"] for event in run.events()[0]}
    assert {"metric", "evaluation", "checkpoint", "sample"} <= kinds
    assert not holding_it(run.path.parent)  # beside it would be MLflow's database
    if "mlflow" in TRACKERS:
        assert any("MLflow" in event["text"] for event in run.events()[0] if event["kind"] == "warning")
