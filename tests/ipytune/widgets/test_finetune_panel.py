"""The panel of five steps: what is typed, checked, estimated and trained, and what of it is saved."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ipytune.endpoints import Endpoint
from ipytune.lora.config import ConfigError, RunConfig
from ipytune.runs import Phase, Status
from ipytune.runs.directory import RunDirectory
from ipytune.widgets import FineTunePanel, finetune
from tests.browser.lab import until
from tests.browser.tiny_model import write_tiny_data, write_tiny_model
from tests.ipytune.endpoints.mock_server import mock_server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    return write_tiny_data(tmp_path / "train.jsonl")


def press(panel: FineTunePanel, what: str, **more: Any) -> None:
    """What the browser sends; waits until the work that it begins is done."""
    panel._on_message(panel, {"do": what, **more}, [])
    until(lambda: not panel.busy, f"the end of {what}", 60)


def field(panel: FineTunePanel, name: str) -> dict[str, Any]:
    return next(f for f in (*panel.data_fields, *panel.settings_fields, *panel.more_fields) if f["name"] == name)


def states(panel: FineTunePanel) -> dict[str, str]:
    return {step["key"]: step["state"] for step in panel.steps}


def test_it_begins_with_the_data_and_asks_for_it(tmp_path: Path) -> None:
    panel = FineTunePanel(tmp_path / "run")
    assert panel.at == "data" and not panel.locked and states(panel)["data"] == "problem"
    assert "Name a file" in field(panel, "train_file")["error"]
    with pytest.raises(ConfigError, match="Conversations to learn from: Name a file"):
        panel.start()


def test_wrong_settings_stand_at_their_fields_and_nothing_starts(tmp_path: Path, train_file: Path) -> None:
    panel = FineTunePanel(tmp_path / "run", train_file=train_file)
    press(panel, "set", name="lora.rank", value="many")
    assert "integer" in field(panel, "lora.rank")["error"] and states(panel)["settings"] == "problem"
    press(panel, "start")
    assert "Rank" in panel.problem["what"] and not (tmp_path / "run").exists()
    press(panel, "set", name="lora.rank", value="4")
    assert panel.config.lora.rank == 4 and field(panel, "lora.rank")["error"] == ""
    for nonsense in ({"name": "no", "value": 1}, {"name": None}, {"value": {}}, {"name": "track", "value": 3}):
        press(panel, "set", **nonsense)
        assert panel.problem["what"]
    with pytest.raises(ValueError, match="learning_rate"):
        FineTunePanel(tmp_path / "run", train_file=train_file, learning_rate="fast")


def test_columns_that_only_look_right_are_suggested_and_mapped_by_hand(tmp_path: Path, model: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("question,answer\none nodes,two hours\nthree nodes,four hours\n")
    panel = FineTunePanel(tmp_path / "run", model=model)
    press(panel, "set", name="train_file", value=str(file))
    assert "prompt is “question”" in panel.columns["suggestion"]
    press(panel, "check")
    assert panel.found["findings"] and not panel.found["passed"] and states(panel)["data"] == "problem"
    press(panel, "suggested")
    assert panel.config.data.columns == {"prompt": "question", "completion": "answer"}
    press(panel, "check")
    assert panel.found["passed"] and panel.found["current"] and states(panel)["data"] == "done"
    assert ["Conversations", "2"] in panel.found["counts"]
    learned = [text for text, is_learned in panel.found["preview"][0]["conversations"][0]["segments"] if is_learned]
    assert "hours" in "".join(learned)
    press(panel, "set", name="max_length", value="512")
    assert not panel.found["current"] and states(panel)["data"] == ""


def test_bad_data_keeps_a_run_from_starting(tmp_path: Path, model: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("nonsense\n")
    panel = FineTunePanel(tmp_path / "run", model=model, train_file=file)
    with pytest.raises(ValueError, match="cannot be used yet"):
        panel.run()
    assert panel.at == "data" and panel.found["findings"][0]["place"] == "train.jsonl:1"
    assert not (tmp_path / "run").exists()


def test_memory_is_estimated_and_the_change_that_helps_is_taken_over(
    tmp_path: Path, model: str, train_file: Path
) -> None:
    panel = FineTunePanel(tmp_path / "run", model=model, train_file=train_file)
    press(panel, "goto", step="memory")
    assert panel.memory["verdict"] == "fits" and panel.memory["current"]
    assert sum(part["share"] for part in panel.memory["parts"]) <= 1
    press(panel, "apply")
    assert "no change" in panel.problem["what"]
    press(panel, "goto", step="nowhere")
    assert "is no step" in panel.problem["what"]


def made_run(tmp_path: Path, config: RunConfig, phase: Phase) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create(config.pinned().as_yaml())
    for step in range(1, 6):
        directory.append_event("metric", step=step, loss=4.0 / step)
    directory.adapter.mkdir()
    (directory.adapter / "adapter_config.json").write_text("{}")
    directory.write_report({"steps": 5, "loss": 0.8, "eval_loss": 0.9, "training_seconds": 3.0})
    directory.write_status(Status(phase=phase, step=5, total_steps=5, loss=0.8))
    return directory


def test_a_directory_with_a_run_is_shown_with_its_settings(tmp_path: Path, model: str, train_file: Path) -> None:
    made_run(tmp_path, RunConfig(model=model, train_file=train_file, seed=7), Phase.COMPLETED)
    panel = FineTunePanel(tmp_path / "run")
    assert panel.at == "adapter" and panel.locked and field(panel, "seed")["value"] == "7"
    assert states(panel)["training"] == states(panel)["adapter"] == "done"
    assert ["Held-out loss", "0.900"] in panel.result["facts"]
    assert panel.run()["steps"] == 5  # nothing is trained again
    with pytest.raises(ValueError, match="begin a new run"):
        panel.set("seed", "8")


def test_other_settings_than_the_run_s_are_told_and_refused_unattended(
    tmp_path: Path, model: str, train_file: Path
) -> None:
    made_run(tmp_path, RunConfig(model=model, train_file=train_file), Phase.COMPLETED)
    panel = FineTunePanel(tmp_path / "run", model=model, train_file=train_file, seed=3)
    assert "shown with its own settings" in panel.note
    with pytest.raises(ValueError, match="seed: 0 there, 3 here"):
        panel.run()


def test_a_new_run_takes_the_settings_to_the_next_directory(tmp_path: Path, model: str, train_file: Path) -> None:
    made_run(tmp_path, RunConfig(model=model, train_file=train_file, seed=7), Phase.STOPPED)
    (tmp_path / "run-2").mkdir()
    panel = FineTunePanel(tmp_path / "run")
    press(panel, "new")
    assert panel.title == str(tmp_path / "run-3") and not panel.locked and panel.training is None
    panel.set("seed", "8")
    assert panel.config.seed == 8 and panel.result == {}


def test_without_an_adapter_nothing_can_be_taken_out(tmp_path: Path, train_file: Path) -> None:
    panel = FineTunePanel(tmp_path / "run", train_file=train_file)
    for what in ("merge", "gguf", "card", "try"):
        press(panel, what)
        assert "no adapter yet" in panel.problem["what"], what


def test_both_models_are_asked_from_a_cell_and_the_panel_is_free_again(
    tmp_path: Path, model: str, train_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_run(tmp_path, RunConfig(model=model, train_file=train_file), Phase.COMPLETED)
    stopped = []
    with mock_server() as mock:
        endpoints = tuple(Endpoint(name=name, base_url=mock.url, model=name) for name in ("base", "tuned"))

        def serving(*_: object, progress: Any, **__: object) -> Any:
            progress("Starting the server …")
            return SimpleNamespace(endpoints=endpoints, stop=lambda: stopped.append(True))

        monkeypatch.setattr(finetune, "serve", serving)
        panel = FineTunePanel(tmp_path / "run")
        sides = panel.try_out("one nodes two")
        assert panel.busy == "" and panel.sides is sides
        assert [column["text"] for column in sides.columns] == ["hello there"] * 2
        assert "hello there" in panel.static_html()
        panel.stop_trying()
        assert stopped == [True] and panel.sides is None


def test_what_is_saved_has_a_picture_and_no_markup_of_the_data(tmp_path: Path, model: str) -> None:
    file = tmp_path / "train.jsonl"
    messages = [{"role": "user", "content": "<script>x</script>"}, {"role": "assistant", "content": "<img src=x>"}]
    file.write_text(json.dumps({"messages": messages}) + "\n")
    panel = FineTunePanel(tmp_path / "run", model=model, train_file=file)
    panel.check()
    panel.estimate()
    data, _ = panel._repr_mimebundle_()
    assert "<svg" in data["text/html"] and "Conversations" in data["text/html"]
    assert "<script" not in data["text/html"] and "<img" not in data["text/html"]
    assert "not started" in data["text/plain"]


def test_unattended_from_data_to_merged_model(tmp_path: Path, model: str, train_file: Path) -> None:
    settings = {"max_steps": 3, "checkpoint_every": 0, "threads": 1, "lora.rank": 2, "eval_every": None}
    panel = FineTunePanel(tmp_path / "run", model=model, train_file=train_file, **settings)
    report = panel.run()
    assert report["step"] == 3 and states(panel)["adapter"] == "done"
    assert panel.adapter is not None and ["Adapter (PEFT)", str(panel.adapter)] == panel.result["files"][0][:2]
    merged = panel.merge()
    assert (merged / "model.safetensors").is_file() and "Merged model" in panel.result["made"]
    assert "<svg" in panel.static_html() and "completed" in panel.static_text()
