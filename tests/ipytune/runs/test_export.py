"""Exports: texts as people get them, which train the same, and hold nothing of this machine that they need not."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ipytune.cli_launch import export as export_command
from ipytune.lora.config import ConfigError, DataSettings, LoraSettings, RunConfig
from ipytune.runs import Run
from ipytune.runs.export import FORMS, export
from ipytune.runs.export.as_python import as_python
from ipytune.runs.launch import KubernetesSettings, SlurmSettings

VERSIONS = {"python": "3.11.9", "ipytune": "0.1.0", "torch": "2.13.0+cpu", "peft": "0.21.2"}
TOKEN = "hf_abcdefSECRET"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name, said in (("questions.jsonl", "two nodes"), ("held out.jsonl", "one node")):
        line = {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "#SBATCH"}]}
        (tmp_path / name).write_text(json.dumps(line) + "\n")
    return RunConfig(
        train_file=tmp_path / "questions.jsonl",
        eval_file=tmp_path / "held out.jsonl",
        lora=LoraSettings(rank=8),
        data=DataSettings(columns={"prompt": "it's"}),
        sample_prompts=('a "quoted"\nquestion',),
        epochs=2,
        versions=VERSIONS,
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_texts(config: RunConfig, tmp_path: Path, form: Any, golden: Callable[[str, str], None]) -> None:
    main = export(config, form, tmp_path / "headers")
    text = main.read_text()
    if form == "yaml":  # the settings themselves are tested below
        text = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    golden(f"{form}-{main.name}.txt", re.sub(r"(?ms)^CONFIG = .*?^\)$", "CONFIG = ...", text))
    golden("requirements.txt", (main.parent / "requirements.txt").read_text())


@pytest.mark.parametrize("form", FORMS)
def test_an_export_holds_its_data_no_path_of_this_machine_and_no_secret(
    config: RunConfig, tmp_path: Path, form: Any
) -> None:
    main = export(config, form, tmp_path / "out")
    texts = {file: file.read_text() for file in main.parent.rglob("*") if file.is_file()}
    assert (main.parent / "data/train.jsonl").read_bytes() == config.train_file.read_bytes()
    assert (main.parent / "data/eval.jsonl").is_file()
    assert not [file for file, text in texts.items() if str(tmp_path) in text or TOKEN in text]
    assert any("Run it with:" in line for line in texts[main].splitlines()[:2])
    assert "torch==2.13.0\n" in texts[main.parent / "requirements.txt"]


def test_the_yaml_trains_the_same(config: RunConfig, tmp_path: Path) -> None:
    again = RunConfig.from_yaml(export(config, "yaml", tmp_path / "out")).pinned()
    moved = {"train_file": again.train_file, "eval_file": again.eval_file}
    assert not config.pinned().model_copy(update=moved).differences(again)


def test_the_script_holds_the_same_settings(config: RunConfig, tmp_path: Path) -> None:
    main = export(config, "script", tmp_path / "out")
    compile(main.read_text(), str(main), "exec")
    found: dict[str, Any] = {"__file__": str(main), "__name__": "exported"}
    exec(compile(main.read_text(), str(main), "exec"), found)
    again: RunConfig = found["CONFIG"].pinned()
    moved = {"train_file": again.train_file, "eval_file": again.eval_file}
    assert again.train_file == main.parent / "data/train.jsonl"
    assert not config.pinned().model_copy(update=moved).differences(again)


@given(st.text(), st.lists(st.text(max_size=10), max_size=3), st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_any_setting_survives_as_python(model: str, prompts: list[str], columns: dict[str, str]) -> None:
    config = RunConfig(
        model=model, train_file=Path("t"), sample_prompts=tuple(prompts), data=DataSettings(columns=columns)
    )
    source = as_python(config)
    ast.parse(source)
    names = {"RunConfig": RunConfig, "DataSettings": DataSettings, "LoraSettings": LoraSettings, "HERE": Path()}
    assert eval(source, names) == config


def test_large_data_stays_where_it_is_and_a_line_says_so(config: RunConfig, tmp_path: Path) -> None:
    main = export(config, "yaml", tmp_path / "out", copied_bytes=10)
    text = main.read_text()
    assert not (main.parent / "data").exists()
    assert f"train_file: too large to be copied; {config.train_file} of the machine that trained" in text
    assert yaml.safe_load(text)["train_file"] == str(config.train_file)


def test_a_model_directory_is_named_with_a_warning(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = export(config.model_copy(update={"model": str(tmp_path / "model")}), "yaml", tmp_path / "out").read_text()
    assert f"model: a directory of the machine that trained, {tmp_path / 'model'}. Elsewhere, name its copy." in text


def test_a_version_cannot_leave_its_comment(config: RunConfig, tmp_path: Path) -> None:
    evil = config.model_copy(update={"versions": {"torch": "2\nimport os"}})
    for form in FORMS:
        main = export(evil, form, tmp_path / form)
        assert not [line for line in main.read_text().splitlines() if line.startswith("import os")]


def test_the_pod_reads_what_lies_on_its_volume(config: RunConfig, tmp_path: Path) -> None:
    settings = KubernetesSettings(image="r.example.org/i:1", claim="vol", mount="/scratch", gpus=4, memory="200Gi")
    main = export(config, "kubernetes", tmp_path / "headers", kubernetes=settings)
    job = yaml.safe_load(main.read_text())
    folder = "/scratch/ipytune-headers"
    assert job["spec"]["template"]["spec"]["containers"][0]["command"][2:] == [
        *("ipytune.runs.launch.job", f"{folder}/run", f"--config={folder}/config.yaml", "--train=4"),
    ]
    assert folder in main.read_text().split("apiVersion")[0]


def test_what_cannot_be_exported_is_refused(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="yaml, script, sbatch, kubernetes"):
        export(config, "docker", tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not empty"):
        export(config, "yaml", tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        export(tmp_path / "absent", "yaml", tmp_path / "out")
    pinned = config.pinned()
    config.train_file.write_text("{}\n")
    with pytest.raises(ConfigError, match="has changed"):
        export(pinned, "yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(config: RunConfig, tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(export_command)
    config.to_yaml(tmp_path / "c.yaml")
    arguments = [str(tmp_path / "c.yaml"), "--to", "sbatch", "--out", str(tmp_path / "out"), "--job", "partition=debug"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "#SBATCH --partition=debug" in (tmp_path / "out/job.sbatch").read_text()
    result = CliRunner().invoke(app, [*arguments[:-1], "partition=a b"])
    assert result.exit_code == 1 and "not empty" not in result.output and "partition" in result.output
    result = CliRunner().invoke(
        app, [str(tmp_path / "c.yaml"), "--to", "yaml", "--out", str(tmp_path / "o"), "--job", "a=b"]
    )
    assert result.exit_code == 1 and "is for --to sbatch" in result.output


def test_a_run_is_exported_with_the_versions_that_trained_it(config: RunConfig, tmp_path: Path) -> None:
    from ipytune.runs.directory import RunDirectory

    RunDirectory(tmp_path / "run").create(config.pinned().as_yaml())
    main = export(Run.open(tmp_path / "run"), "sbatch", tmp_path / "out", slurm=SlurmSettings(account="g1"))
    assert "Trained with torch 2.13.0+cpu" in main.read_text()
    subprocess.run(["bash", "-n", str(main)], check=True)
    assert sys.executable not in main.read_text()


def test_the_script_s_answer_ends_where_the_tokenizer_says(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the model's generation_config names another token."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import LlamaForCausalLM

    from tests.ipytune.adapter import tiny

    base = tiny.save_model(tmp_path / "model")
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = torch.zeros_like(weights["lm_head.weight"])  # it says token 0, whatever it is asked
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    (base / "generation_config.json").write_text('{"eos_token_id": 5}')
    words = tiny.tokenizer("llama-bpe")
    words.eos_token = str(words.convert_ids_to_tokens(0))
    words.save_pretrained(base)

    main = export(config.model_copy(update={"model": str(base)}), "script", tmp_path / "out")
    found: dict[str, Any] = {"__file__": str(main), "__name__": "exported"}
    exec(compile(main.read_text(), str(main), "exec"), found)
    said: list[int] = []
    generate: Any = LlamaForCausalLM.generate

    def listening(self: Any, **asked: Any) -> Any:
        output = generate(self, **asked)
        said.append(output.shape[1] - asked["input_ids"].shape[1])
        return output

    monkeypatch.setattr(LlamaForCausalLM, "generate", listening)
    found["answer"](SimpleNamespace(adapter=tiny.save_adapter(base, tmp_path / "adapter")), "two nodes")
    assert said == [1]
