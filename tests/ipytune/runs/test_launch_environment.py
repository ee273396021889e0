"""Tokens and addresses reach the trainer by its environment, whoever runs it, and by nothing else."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ipytune.lora.config import RunConfig
from ipytune.runs import Run
from ipytune.runs.directory import RunDirectory
from ipytune.runs.launch import KubernetesJob, KubernetesSettings, LaunchError, Sbatch, Session, commands, slurm
from ipytune.runs.launch.environment import for_a_job
from ipytune.runs.launch.kubernetes import check_tracker

MARKER = "marker-of-a-secret"
SECRETS = {
    "HF_TOKEN": MARKER,
    "MLFLOW_TRACKING_TOKEN": MARKER,
    "MLFLOW_TRACKING_USERNAME": MARKER,
    "MLFLOW_TRACKING_PASSWORD": MARKER,
    "MLFLOW_TRACKING_URI": f"https://user:{MARKER}@mlflow.example.org",
}
OURS = {"JUPYTERHUB_API_TOKEN": MARKER, "SLURM_MEM_PER_NODE": "1", "RANK": "1", "WORLD_SIZE": "2"}
TELL = "import json, os; print(json.dumps({name: os.environ.get(name) for name in %r}))"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    for name, value in {**SECRETS, **OURS}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "train.jsonl").write_text("{}\n")  # nobody but a trainer reads it
    return RunConfig(train_file=tmp_path / "train.jsonl")


def holding_it(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and MARKER.encode() in file.read_bytes()]


def test_a_process_of_this_session_has_them(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [sys.executable, "-c", TELL % [*SECRETS, "RANK"]]
    monkeypatch.setattr(commands, "trainer", lambda *_: told)
    directory = RunDirectory(tmp_path / "run")
    directory.create(config.as_yaml())
    handle: Any = Session().start(directory)
    handle._child.wait(60)
    assert json.loads(directory.log.read_text()) == {**SECRETS, "RANK": None}


SBATCH = f"""#!{sys.executable}
import json, os, sys
open(os.environ["TOLD"], "w").write(json.dumps([sys.argv[1:], dict(os.environ)]))
print(12)
"""


def test_a_batch_job_gets_the_user_s_own_and_none_of_the_session_s(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", "#!/bin/sh\nexit 1\n"), ("squeue", "#!/bin/sh\nexit 1\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    slurm.local_cluster.cache_clear()
    run = Run.start(config, tmp_path / "run", launcher=Sbatch())
    slurm.local_cluster.cache_clear()
    arguments, environment = json.loads((tmp_path / "told").read_text())
    assert "--export=ALL" in arguments and not any(MARKER in argument for argument in arguments)
    assert {name: environment[name] for name in SECRETS} == SECRETS
    assert not set(OURS) & set(environment)
    assert not holding_it(run.path)


def test_the_session_s_own_token_stays_in_the_session() -> None:
    kept = for_a_job({**SECRETS, **OURS, "HOME": "/home/ada", "SLURM_CONF": "/etc/slurm.conf"})
    assert kept == {**SECRETS, "HOME": "/home/ada", "SLURM_CONF": "/etc/slurm.conf"}


class Memory:
    """As much of the API as a start needs."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []

    def create(self, manifest: dict[str, Any]) -> None:
        self.created.append(manifest)

    def job(self, name: str, namespace: str) -> dict[str, Any]:
        return {}

    def pods(self, name: str, namespace: str) -> list[dict[str, Any]]:
        return []


def test_a_pod_gets_a_secret_by_its_name(config: RunConfig, tmp_path: Path) -> None:
    api: Any = Memory()
    settings = KubernetesSettings(image="ipytune:1", claim="runs", mount=str(tmp_path), secret="tracking")
    run = Run.start(config, tmp_path / "run", launcher=KubernetesJob(settings, lambda: api))
    (container,) = api.created[0]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "tracking"}}]
    assert not set(SECRETS) & {entry["name"] for entry in container["env"]}
    assert MARKER not in json.dumps(api.created) and not holding_it(run.path)


def test_a_pod_that_would_not_find_the_tracker_is_refused(config: RunConfig, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create(config.model_copy(update={"track": ("mlflow",)}).as_yaml())
    settings = KubernetesSettings(image="ipytune:1", claim="runs", namespace="ml")
    with pytest.raises(LaunchError, match=r"track: mlflow: .*--namespace=ml --from-env-file=FILE") as raised:
        check_tracker(directory, settings)
    assert MARKER not in str(raised.value)
    check_tracker(directory, settings.model_copy(update={"secret": "tracking"}))
    directory.create(config.as_yaml())
    check_tracker(directory, settings)
