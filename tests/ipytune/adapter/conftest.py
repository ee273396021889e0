from __future__ import annotations

from pathlib import Path

import pytest

from tests.ipytune.adapter import tiny


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def adapter(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_adapter(llama, tmp_path_factory.mktemp("adapters") / "plain")


@pytest.fixture(scope="session")
def merged(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ipytune.adapter.merge import merge

    return merge(adapter, tmp_path_factory.mktemp("merged") / "tiny-tuned")
