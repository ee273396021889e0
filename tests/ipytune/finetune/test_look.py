"""What a look at the data finds, without loading a model."""

import json
from pathlib import Path

import pytest

from ipytune.data.findings import DatasetError
from ipytune.finetune.look import columns, data_files, look, model_names
from ipytune.lora.config import DataSettings, RunConfig
from tests.browser.tiny_model import write_tiny_data, write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def test_counts_the_first_batch_and_what_to_ask(tmp_path: Path, model: Path) -> None:
    config = RunConfig(model=str(model), train_file=write_tiny_data(tmp_path / "train.jsonl"))
    found = look(config)
    assert found.passed and found.report is not None and found.report.examples == 64
    assert found.first_batch is not None and found.question == "one nodes one" and found.system == ""
    row = found.first_batch.plain()[0]
    learned = "".join(text for text, is_learned in row["conversations"][0]["segments"] if is_learned)
    assert "hours" in learned and "nodes" not in learned


def test_bad_rows_are_findings_and_no_exception(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "a"}]}\nnonsense\n')
    found = look(RunConfig(model=str(model), train_file=file))
    assert not found.passed and found.report is None
    assert {finding.line for finding in found.findings} == {1, 2}


def test_columns_of_a_file_and_what_they_seem_to_be(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("question,answer\na,b\n")
    seen = columns(file)
    assert seen.names == ("question", "answer")
    assert seen.guessed.columns == {"prompt": "question", "completion": "answer"}
    assert seen.asked("auto")[:2] == ("prompt", "completion") and seen.asked("alpaca")[0] == "instruction"
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DatasetError):
        columns(tmp_path / "bad.json")


def test_mapped_columns_are_learned(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("question,answer\none nodes,two hours\n")
    mapped = DataSettings(columns={"prompt": "question", "completion": "answer"})
    assert look(RunConfig(model=str(model), train_file=file, data=mapped)).passed


def test_files_and_models_to_choose_from(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "run").mkdir()
    for name in ("a.jsonl", "data/b.csv", ".hidden.jsonl", "run/status.json", "run/c.jsonl", "note.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps({}))
    assert data_files(tmp_path) == ["a.jsonl", "data/b.csv"]  # of a run or a model nothing
    assert model_names(tmp_path)[1:] == ["tiny"]
