"""Trackers see the curve and the end, never hold training up, never end it, and never learn or leak a secret."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ipytune.data.findings import DatasetError
from ipytune.lora.config import ConfigError, RunConfig
from ipytune.lora.train import Interrupt, run
from ipytune.runs import track
from ipytune.runs.directory import RunDirectory
from ipytune.runs.recorder import Recorder
from ipytune.runs.status import Phase
from ipytune.runs.track import Tracking, require, told, tracking

LIMIT = 60.0  # seconds until a test gives up; none waits so long


class Remembering:
    """A tracker that keeps what it is told. Before it starts and before each flush it waits until `open` is set, and
    fails as often as `failures` says."""

    name = "Remembering"

    def __init__(self, failures: int = 0) -> None:
        self.told: list[Any] = []
        self.open = threading.Event()
        self.open.set()
        self.failures = failures

    def start(self, config: RunConfig, resumed_at: int | None) -> None:
        self._pass()
        self.told.append(("start", resumed_at))

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        self.told.append((step, dict(metrics)))

    def flush(self) -> None:
        self._pass()

    def finish(self, phase: Phase) -> None:
        self._pass()
        self.told.append(("finish", phase))

    def _pass(self) -> None:
        assert self.open.wait(LIMIT)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("https://me:hunter22@tracker.example/api refused\nmore")


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(train_file=tmp_path / "train.jsonl", learning_rate=1e-3)


@pytest.fixture
def directory(tmp_path: Path, config: RunConfig) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create(config.as_yaml())
    return directory


def recorder_of(directory: RunDirectory, config: RunConfig, *trackers: Remembering) -> Recorder:
    recorder = Recorder(directory)
    recorder.listener = Tracking(trackers, config, lambda text: recorder.event("warning", text=text)).take
    return recorder


def train(recorder: Recorder, steps: int = 3, first: int = 1, phase: Phase = Phase.COMPLETED) -> None:
    """What the training loop tells a recorder."""
    if first > 1:
        recorder.event("resumed", step=first - 1)
    recorder.phase(Phase.TRAINING)
    for step in range(first, first + steps):
        recorder.step(0.5 * step, True, step=step, loss=4.0 / step, learning_rate=1e-3, tokens=10 * step)
        if step % 2 == 0:
            recorder.event("evaluation", step=step, eval_loss=5.0 / step, best=True)
    recorder.phase(Phase.FINALIZING)
    recorder.end(phase, {"ended_by": "steps", "step": steps})


def warnings(directory: RunDirectory) -> list[str]:
    return [event["text"] for event in directory.read_events()[0] if event["kind"] == "warning"]


def test_a_tracker_sees_start_curve_and_end(directory: RunDirectory, config: RunConfig) -> None:
    tracker = Remembering()
    train(recorder_of(directory, config, tracker), steps=2)
    assert tracker.told == [
        ("start", None),
        (1, {"loss": 4.0, "learning_rate": 1e-3, "tokens": 10.0}),
        (2, {"loss": 2.0, "learning_rate": 1e-3, "tokens": 20.0}),
        (2, {"eval_loss": 2.5}),
        ("finish", Phase.COMPLETED),
    ]
    assert warnings(directory) == []


def test_a_continued_run_says_from_where(directory: RunDirectory, config: RunConfig) -> None:
    tracker = Remembering()
    train(recorder_of(directory, config, tracker), first=5, phase=Phase.STOPPED)
    assert (tracker.told[0], tracker.told[-1]) == (("start", 4), ("finish", Phase.STOPPED))


def test_a_failed_run_is_told_as_failed(directory: RunDirectory, config: RunConfig) -> None:
    tracker = Remembering()
    recorder = recorder_of(directory, config, tracker)
    recorder.phase(Phase.TRAINING)
    recorder.fail("out of memory")
    assert tracker.told[-1] == ("finish", Phase.ERROR)


def test_training_does_not_wait_for_a_tracker_and_what_is_too_much_is_told(
    directory: RunDirectory, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "QUEUE", 10)
    monkeypatch.setattr(track, "CLOSE_SECONDS", 0.05)
    slow = Remembering()
    slow.open.clear()
    train(recorder_of(directory, config, slow), steps=50)  # returns although nobody opened
    assert directory.read_status().phase == "completed"
    assert warnings(directory) == [
        "Remembering did not take the last records; they are in events.jsonl.",
        "Remembering was too slow for 65 records; they are in events.jsonl.",
    ]
    slow.open.set()


def test_a_tracker_that_fails_is_one_warning_and_goes_on_when_it_is_back(
    directory: RunDirectory, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "RETRY_SECONDS", 0.001)
    tracker, other = Remembering(failures=3), Remembering()
    train(recorder_of(directory, config, tracker, other), steps=3)
    assert [line[0] for line in tracker.told] == ["start", 1, 2, 2, 3, "finish"]
    assert tracker.told == other.told
    (warning,) = warnings(directory)
    assert warning.startswith("Remembering does not answer: ConnectionError: https://tracker.example/api refused.")


def test_a_tracker_that_stays_away_does_not_stop_the_run(
    directory: RunDirectory, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "RETRY_SECONDS", 0.001)
    train(recorder_of(directory, config, Remembering(failures=10**9)))
    assert directory.read_status().phase == "completed"
    assert len(warnings(directory)) == 2
    assert "did not take the last records" in warnings(directory)[1]


def test_warnings_hold_no_secret() -> None:
    error = RuntimeError("401 from https://user:pass@host/x with token s3cr3t-value")
    assert (
        told(error, {"MLFLOW_TRACKING_TOKEN": "s3cr3t-value"}) == "RuntimeError: 401 from https://host/x with token ***"
    )


def test_a_missing_package_is_told_before_training(
    directory: RunDirectory, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "find_spec", lambda name: None)
    require(())
    with pytest.raises(ConfigError, match=r"track: tensorboard needs .*tensorboardX.*ipytune\[track\]"):
        require(("tensorboard",))
    config.train_file.write_text("{}\n")
    directory.create(config.model_copy(update={"track": ("tensorboard",)}).as_yaml())
    with pytest.raises(ConfigError, match="track: tensorboard"):
        run(directory, Recorder(directory), Interrupt(directory))


def test_mlflow_without_an_address_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(track, "find_spec", lambda name: None if name == "sqlalchemy" else object())
    with pytest.raises(ConfigError, match="Set MLFLOW_TRACKING_URI"):
        require(("mlflow",))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracker.example")
    require(("mlflow",))


def test_a_run_that_fails_before_training_ends_without_trackers(directory: RunDirectory, config: RunConfig) -> None:
    recorder = recorder_of(directory, config, Remembering())
    recorder.phase(Phase.LOADING_DATASET)
    recorder.fail(str(DatasetError([])))
    assert directory.read_status().phase == "error"


# --- the real ones ---------------------------------------------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the import of a tracker's package takes seconds."""
    monkeypatch.setattr(track, "CLOSE_SECONDS", LIMIT)


def tracked(directory: RunDirectory, config: RunConfig, name: str) -> Recorder:
    recorder = Recorder(directory)
    told_to = config.model_copy(update={"track": (name,)})
    recorder.listener = tracking(told_to, directory, lambda text: recorder.event("warning", text=text))
    return recorder


@pytest.mark.usefixtures("patient")
def test_tensorboard_reads_the_curve_and_a_continued_run_hides_what_is_done_again(
    directory: RunDirectory, config: RunConfig
) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (pip install 'ipytune[track]')")
    train(tracked(directory, config, "tensorboard"), steps=4, phase=Phase.STOPPED)
    train(tracked(directory, config, "tensorboard"), steps=3, first=3)
    assert warnings(directory) == []
    assert scalars(directory.path / "tensorboard", "loss") == {step: 4.0 / step for step in range(1, 6)}
    assert scalars(directory.path / "tensorboard", "eval_loss") == {2: 2.5, 4: 1.25}


def scalars(folder: Path, tag: str) -> dict[int, float]:
    """What TensorBoard would show: it forgets steps at or after the one at which a later file begins."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown: dict[int, float] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        content = file.read_bytes()
        while content:  # length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.session_log.status == SessionLog.START:
                shown = {step: value for step, value in shown.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == tag:
                    assert event.step not in shown
                    shown[event.step] = pytest.approx(value.simple_value)
    return shown


@pytest.fixture
def mlflow_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed (pip install 'ipytune[track]')")
    folder = tmp_path / "mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", folder.as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cr3t-value")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return folder


@pytest.mark.usefixtures("patient")
def test_mlflow_has_one_run_with_settings_curve_and_end(
    directory: RunDirectory, config: RunConfig, mlflow_folder: Path
) -> None:
    from mlflow import MlflowClient

    train(tracked(directory, config, "mlflow"), steps=4, phase=Phase.STOPPED)
    client = MlflowClient()
    run_id = json.loads((directory.path / "mlflow.json").read_text())["run_id"]
    assert client.get_run(run_id).info.status == "KILLED"
    train(tracked(directory, config, "mlflow"), steps=3, first=3)
    assert warnings(directory) == []
    found = client.get_run(run_id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["learning_rate"] == "0.001" and found.data.params["lora.rank"] == "16"
    points = [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "loss")]
    assert points == [(step, 4.0 / step) for step in range(1, 6)]
    experiment = client.get_experiment_by_name("ipytune")
    assert experiment is not None and len(client.search_runs([experiment.experiment_id])) == 1
    for file in directory.path.rglob("*"):
        assert file.is_dir() or b"s3cr3t-value" not in file.read_bytes()


@pytest.mark.usefixtures("patient")
def test_an_mlflow_server_that_is_away_is_a_warning(
    directory: RunDirectory, config: RunConfig, mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter22@127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(track, "RETRY_SECONDS", 0.01)
    train(tracked(directory, config, "mlflow"))
    assert directory.read_status().phase == "completed"
    assert warnings(directory)[0].startswith("MLflow does not answer")
    assert "hunter22" not in directory.events.read_text()
