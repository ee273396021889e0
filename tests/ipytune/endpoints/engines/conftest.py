from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.ipytune.endpoints.engines import fake_vllm as program


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """IPYTUNE_VLLM names a program that behaves as vLLM; returns the file in which it tells how it was started."""
    script = tmp_path / "environment" / "vllm"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({program.__file__!r}, run_name='__main__')\n")
    script.chmod(0o755)
    monkeypatch.setenv("IPYTUNE_VLLM", str(script))
    trace = tmp_path / "trace.json"
    monkeypatch.setenv("FAKE_VLLM_TRACE", str(trace))
    return trace


@pytest.fixture(autouse=True)
def own_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What servers register is for this test alone, and no Jupyter server is around."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("IPYTUNE_ENDPOINTS", "IPYTUNE_ENDPOINTS_FILE", "JUPYTERHUB_SERVICE_PREFIX", "JUPYTER_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
