"""`ipytune check` names what is wrong, shows what is learned, and says by its exit status whether all is well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ipytune.cli_data import check
from ipytune.lora.config import RunConfig
from tests.ipytune.lora import tiny

app = typer.Typer()
app.command()(check)


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def save_model(directory: Path) -> Path:
    """A tokenizer and a config.json: all that a check reads of a model."""
    tiny.tokenizer().save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": len(tiny.WORDS)}))
    return directory


def test_a_data_file_alone(tmp_path: Path) -> None:
    code, output = command(tiny.write_conversations(tmp_path / "train.jsonl", 5))
    assert code == 0, output
    assert "5 conversations to train on" in output
    (tmp_path / "bad.csv").write_text("prompt,completion\nq,\n")
    code, output = command(tmp_path / "bad.csv")
    assert code == 1
    assert "bad.csv:2: message 2 (assistant) is empty" in output


def test_with_a_model_the_first_batch_is_shown(tmp_path: Path) -> None:
    config = RunConfig(
        model=str(save_model(tmp_path / "model")), train_file=tiny.write_conversations(tmp_path / "train.jsonl", 9)
    )
    config.to_yaml(tmp_path / "config.yaml")
    code, output = command(tmp_path / "config.yaml", "--preview", 2)
    assert code == 0, output
    assert output.count("── conversation") == 2
    assert "9 conversations to train on" in output
    assert "<start> assistant⟦ w" in output


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.jsonl", None, "No such file"),
        ("config.yaml", "rank: 3", "train_file: Field required"),
        ("data.xlsx", "", "says no format"),
    ],
)
def test_what_cannot_be_checked_is_told_in_words(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    code, output = command(tmp_path / name)
    assert code == 1
    assert message in output
    assert "Traceback" not in output
