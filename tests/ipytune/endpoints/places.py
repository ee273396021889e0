"""Where the catalogue looks, moved into a test's own folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Places:
    file: Path
    runtime: Path
    monkeypatch: pytest.MonkeyPatch

    def site(self, *endpoints: dict[str, Any]) -> None:
        self.monkeypatch.setenv("IPYTUNE_ENDPOINTS", json.dumps(endpoints))

    def user(self, text: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(text, encoding="utf-8")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    made = Places(tmp_path / "config" / "endpoints.yaml", tmp_path / "runtime", monkeypatch)
    monkeypatch.setenv("IPYTUNE_ENDPOINTS_FILE", str(made.file))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(made.runtime))
    monkeypatch.delenv("IPYTUNE_ENDPOINTS", raising=False)
    return made
