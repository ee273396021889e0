"""The cache that a server is pointed at: short valid names, links, the adapter beside what it needs of its base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from ipytune.endpoints.layout import Served, add, remove, served_name, write_cache


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    directory.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (directory / name).write_text("{}")
    return directory


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere", "r": 16}')
    for name in ("adapter_model.safetensors", "README.md"):
        (directory / name).write_text("")
    return directory


@given(st.text(st.characters(codec="ascii"), max_size=120))
def test_every_text_becomes_a_valid_model_id(text: str) -> None:
    validate_repo_id(served_name(text))


def test_a_tuned_model_is_the_base_without_its_weights_and_the_adapter(
    tmp_path: Path, base: Path, adapter: Path
) -> None:
    write_cache(tmp_path / "cache", [Served("base", base), Served("tuned", base, adapter)])
    snapshot = next((tmp_path / "cache" / "models--tuned" / "snapshots").iterdir())
    assert {file.name for file in snapshot.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    settings = json.loads((snapshot / "adapter_config.json").read_text())
    assert settings == {"base_model_name_or_path": str(base.resolve()), "r": 16}
    assert "elsewhere" in (adapter / "adapter_config.json").read_text()  # the run's own file is left alone


def test_what_is_no_model_or_no_adapter_is_named(tmp_path: Path, base: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config.json"):
        write_cache(tmp_path / "a", [Served("x", tmp_path)])
    with pytest.raises(FileNotFoundError, match="Train first"):
        write_cache(tmp_path / "b", [Served("x", base, tmp_path / "no-such-run")])
    with pytest.raises(ValueError, match="same name"):
        write_cache(tmp_path / "c", [Served("x", base), Served("x", base)])


def test_a_model_comes_and_goes_while_others_stay(tmp_path: Path, base: Path, adapter: Path) -> None:
    cache = tmp_path / "cache"
    write_cache(cache, [Served("base", base)])
    add(cache, Served("tuned", base, adapter))
    with pytest.raises(FileExistsError, match="tuned"):
        add(cache, Served("tuned", base, adapter))
    assert {entry.name for entry in cache.iterdir()} == {"models--base", "models--tuned"}
    remove(cache, "tuned")
    assert {entry.name for entry in cache.iterdir()} == {"models--base"}
    assert (adapter / "adapter_model.safetensors").is_file()  # links were removed, not what they lead to


def test_a_model_that_cannot_be_added_leaves_nothing(tmp_path: Path, base: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "adapter_config.json").write_text("{")
    cache = tmp_path / "cache"
    write_cache(cache, [Served("base", base)])
    with pytest.raises(ValueError):
        add(cache, Served("tuned", base, damaged))
    assert {entry.name for entry in cache.iterdir()} == {"models--base"}
