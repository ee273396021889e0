"""A configuration says what is wrong with it, and survives its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ipytune.lora.config import ConfigError, LoraSettings, RunConfig
from ipytune.lora.schedule import learning_rate, total_steps


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    config = RunConfig(train_file=tmp_path / "t.jsonl", lora=LoraSettings(targets=("q_proj", "v_proj")), max_minutes=2)
    config.to_yaml(tmp_path / "c.yaml")
    assert RunConfig.from_yaml(tmp_path / "c.yaml") == config


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train_file: data/t.jsonl\neval_file: /elsewhere/e.jsonl\n")
    config = RunConfig.from_yaml(tmp_path / "c.yaml")
    assert (config.train_file, config.eval_file) == (tmp_path / "data/t.jsonl", Path("/elsewhere/e.jsonl"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no settings"),
        ("train_file: [", "is not YAML"),
        ("model: x", "train_file: Field required"),
        ("{train_file: t, learning_rat: 1}", "learning_rat: Extra inputs are not permitted"),
        ("{train_file: t, learning_rate: fast}", "learning_rate: .*given: 'fast'"),
        ("{train_file: t, lora: {rank: 0}}", "lora.rank: .*greater than or equal to 1"),
        ("{train_file: t, max_length: 4096}", "Raise row_tokens, or lower max_length"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_yaml(tmp_path / "c.yaml")


def test_pinning_notices_missing_and_changed_data(tmp_path: Path) -> None:
    config = RunConfig(train_file=tmp_path / "t.jsonl")
    with pytest.raises(ConfigError, match="there is no file"):
        config.pinned()
    (tmp_path / "t.jsonl").write_text("one")
    pinned = config.pinned()
    (tmp_path / "t.jsonl").write_text("two")
    with pytest.raises(ConfigError, match="has changed since"):
        pinned.pinned()


def test_only_what_decides_the_adapter_differs() -> None:
    config = RunConfig(train_file=Path("t"))
    assert config.differences(config.model_copy(update={"log_every": 9, "max_minutes": 1.0, "threads": 1})) == {}
    assert config.differences(config.model_copy(update={"seed": 1})) == {"seed": (0, 1)}


@pytest.mark.parametrize("smoke", [False, True])
def test_the_first_task_finds_its_data_wherever_it_is_installed(smoke: bool) -> None:
    config = RunConfig.first_task(smoke=smoke).pinned()
    assert config.train_sha256 and config.eval_sha256


def test_the_learning_rate_warms_up_and_falls_to_almost_nothing() -> None:
    config = RunConfig(train_file=Path("t"), learning_rate=1.0, warmup_steps=3)
    rates = [learning_rate(step, 10, config) for step in range(10)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates == rates[:4] + sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.2


def test_steps_come_from_epochs_unless_they_are_given() -> None:
    config = RunConfig(train_file=Path("t"), batch_size=8, epochs=1.5)
    assert total_steps(100, config) == 19
    assert total_steps(100, config.model_copy(update={"max_steps": 7})) == 7


def test_what_cannot_be_trained_is_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match="lm_head stays as it is"):
        RunConfig(train_file="t.jsonl", lora={"targets": ["q_proj", "lm_head"]})
    with pytest.raises(ValidationError, match="cannot be sharded"):
        RunConfig(train_file="t.jsonl", quantise="nf4", parallel="fsdp")


def test_a_run_may_go_on_with_less_memory_and_learns_the_same() -> None:
    config = RunConfig(train_file="t.jsonl", row_tokens=4096)
    lean = config.model_copy(update={"row_tokens": 1024, "gradient_checkpointing": "always", "compile": "never"})
    assert config.differences(lean) == {}
    assert set(config.differences(config.model_copy(update={"max_length": 512}))) == {"max_length"}
