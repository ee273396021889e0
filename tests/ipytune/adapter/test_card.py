"""The card holds the run's facts, loads as a hub reads it, and every command in it parses."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

from ipytune.adapter.card import _code, _plain, card, hub_id, write_card
from ipytune.adapter.source import AdapterError
from ipytune.cli_adapter import app
from tests.ipytune.adapter import tiny


@pytest.fixture(scope="module")
def run(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_run(tmp_path_factory.mktemp("runs") / "first try; $(rm) `x`|y", llama)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def header(text: str) -> dict[str, object]:
    assert text.startswith("---\n")
    return dict(yaml.safe_load(text.split("---\n")[1]))


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_every_command_parses(run: Path, form: str) -> None:
    text = card(run, form)  # type: ignore[arg-type]
    python, shell = blocks(text, "python"), blocks(text, "bash")
    assert python and shell
    for code in python:
        ast.parse(code)
    programs = {"vllm", "ipytune", "llama-cli"}
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for line in "".join(shell).splitlines():
        words = shlex.split(line)
        assert words[0] in programs
        assert ";" not in shlex.quote(line) or shlex.join(words)  # quoting survived the run's name
        if words[0] == "ipytune":
            command = commands[words[1]]
            command.make_context(words[1], words[2:], resilient_parsing=False)


def test_facts_of_the_run(run: Path) -> None:
    text = card(run)
    checksum = yaml.safe_load((run / "config.yaml").read_text())["train_sha256"]
    for fact in (checksum, "5 conversations", "4 of 4", "0.5000", "2.2500", "1,234", "rank 16", "2.13.0", "0.0002"):
        assert fact in text, fact
    assert "no held-out data" in text
    assert str(run.parent) not in text  # no path of this machine
    assert "A\\|B" in text  # a bar would end a cell of the table


def test_the_header_is_what_hubs_read(run: Path) -> None:
    fields = header(card(run))
    assert fields["library_name"] == "peft" and "lora" in fields["tags"]  # type: ignore[operator]
    assert "base_model" not in fields and "license" not in fields  # a directory is no model of a hub
    assert header(card(run, "merged"))["library_name"] == "transformers"
    assert hub_id("smollm2-135m-instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert hub_id("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    assert hub_id("../models/mine") is hub_id("/models/mine") is None


def test_it_is_written_beside_adapter_and_merged_model(run: Path, merged: Path, adapter: Path) -> None:
    written = write_card(run, merged)
    assert written == [run / "adapter/README.md", merged / "README.md"]
    assert header(written[1].read_text())["pipeline_tag"] == "text-generation"
    with pytest.raises(AdapterError, match="without its run"):
        card(adapter)


def test_a_proof_is_told_and_dora_is_not_promised_to_vllm(llama: Path, tmp_path: Path) -> None:
    run = tiny.save_run(tmp_path / "run", llama)
    form = {
        "form": "merged",
        "dtype": "bfloat16",
        "logit_difference_relative": 0.01,
        "same_answers": 7,
        "perplexity_change": 0.001,
    }
    (run / "proof.json").write_text(json.dumps({"questions": 8, "forms": [form]}))
    assert "7 of 8 greedy answers the same, perplexity +0.10%" in card(run)
    settings = json.loads((run / "adapter/adapter_config.json").read_text())
    (run / "adapter/adapter_config.json").write_text(json.dumps(settings | {"use_dora": True}))
    text = card(run)
    assert "vllm serve" not in text and "merge it first" in text


@settings(max_examples=50)
@given(st.text())
def test_values_stay_on_their_line_and_in_their_cell(value: str) -> None:
    for shown in (_plain(value), _code(value)):
        assert len(shown.splitlines()) <= 1
        assert not re.search(r"(?<!\\)\|", shown)
    assert "<" not in re.sub(r"\\.", "", _plain(value))


def test_from_the_command_line(run: Path, tmp_path: Path) -> None:
    invoke = CliRunner().invoke
    answer = invoke(app, ["card", str(run)])
    assert answer.exit_code == 0 and "README.md" in answer.output
    answer = invoke(app, ["merge", str(run), "--out", str(tmp_path / "merged"), "--no-check"])
    assert answer.exit_code == 0, answer.output
    assert (tmp_path / "merged/README.md").is_file()
    answer = invoke(app, ["gguf", str(tmp_path / "merged"), "--out", str(tmp_path / "m.gguf"), "--kind", "q8_0"])
    assert answer.exit_code == 0 and "MB" in answer.output
    answer = invoke(app, ["merge", str(tmp_path), "--out", str(tmp_path / "x")])
    assert answer.exit_code == 1 and "holds no adapter" in answer.output
