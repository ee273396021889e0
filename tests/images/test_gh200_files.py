"""The GH200 files are what they claim: an environment definition the container engine reads, a prologue for bash."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

GH200 = Path(__file__).resolve().parents[2] / "images" / "gh200"


def test_the_environment_definition_has_what_a_session_needs() -> None:
    edf = tomllib.loads((GH200 / "oberalp.toml").read_text())
    assert edf["image"].endswith(".sqsh")
    assert all(re.fullmatch(r"[^:]+:[^:]+(:ro)?", mount) for mount in edf["mounts"])
    assert not any("$HOME" in mount or "${HOME}" in mount for mount in edf["mounts"])
    assert any(mount.split(":")[1] == edf["workdir"] for mount in edf["mounts"])
    assert all(isinstance(value, str) for value in edf["env"].values())
    hooks = edf["annotations"]["com"]["hooks"]
    assert hooks["aws_ofi_nccl"]["enabled"] == "true" and hooks["aws_ofi_nccl"]["variant"] in ("cuda12", "cuda13")


def run_prologue(edf: Path) -> "subprocess.CompletedProcess[str]":
    script = (
        f"source {GH200}/prologue.sh\necho edf=$EDF rank=${{RANK-none}} path=${{PYTHONPATH-none}} core=$(ulimit -c)"
    )
    environment = {"PATH": "/usr/bin:/bin", "EDF": str(edf), "RANK": "3", "PYTHONPATH": "/old"}
    return subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True)


def test_the_prologue_clears_what_would_mislead_the_session(tmp_path: Path) -> None:
    edf = tmp_path / "oberalp.toml"
    edf.touch()
    assert run_prologue(edf).stdout == f"edf={edf} rank=none path=none core=0\n"


def test_a_missing_environment_file_ends_the_job_with_its_name(tmp_path: Path) -> None:
    done = run_prologue(tmp_path / "absent.toml")
    assert done.returncode == 1
    assert "absent.toml cannot be read" in done.stderr
