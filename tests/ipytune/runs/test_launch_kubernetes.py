"""A Kubernetes Job: the manifest, the launcher over an API in memory, kubectl, and the real server if there is one."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ipytune.lora.config import RunConfig
from ipytune.runs import Phase, Run, Status
from ipytune.runs.directory import RunDirectory
from ipytune.runs.launch import KubernetesJob, KubernetesSettings, LaunchError, kubernetes_api
from ipytune.runs.launch.base import InKubernetes, read_launched
from ipytune.runs.launch.kubernetes import KubernetesHandle
from ipytune.runs.launch.kubernetes_answers import read
from ipytune.runs.launch.kubernetes_api import Kubectl, Unreachable
from ipytune.runs.launch.manifest import job_name, manifest
from ipytune.runs.launch.settings import DnsName
from tests.clusters.kubernetes import KubernetesCluster

RUNNING = {"metadata": {"name": "pod"}, "status": {"phase": "Running"}}


def settings(tmp_path: Path, **more: Any) -> KubernetesSettings:
    return KubernetesSettings(image="ipytune:1", claim="runs", mount=str(tmp_path), **more)


class Memory:
    """The API as a dictionary."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.their_pods: list[dict[str, Any]] = []
        self.asked = 0
        self.refusal: Exception | None = None

    def __call__(self) -> Memory:
        return self

    def create(self, manifest: dict[str, Any]) -> None:
        if self.refusal:
            raise self.refusal
        self.jobs[manifest["metadata"]["name"]] = manifest

    def job(self, name: str, namespace: str) -> dict[str, Any] | None:
        self.asked += 1
        if self.refusal:
            raise self.refusal
        return self.jobs.get(name)

    def pods(self, name: str, namespace: str) -> list[dict[str, Any]]:
        return self.their_pods

    def log(self, pod: str, namespace: str, lines: int) -> str:
        return "No module named ipytune\n"

    def delete(self, name: str, namespace: str) -> None:
        self.jobs.pop(name, None)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    (tmp_path / "train.jsonl").write_text("{}\n")
    return RunConfig(train_file=tmp_path / "train.jsonl")


def test_a_job_trains_in_the_shared_directory_and_is_known_by_its_name(config: RunConfig, tmp_path: Path) -> None:
    api = Memory()
    run = Run.start(config, tmp_path / "My run", launcher=KubernetesJob(settings(tmp_path, gpus=2), api))
    (name,) = api.jobs
    assert name.startswith("ipytune-my-run-")
    assert read_launched(RunDirectory(run.path)) == InKubernetes(job=name, namespace="default")
    container = api.jobs[name]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "ipytune.runs.launch.job", str(run.path), "--train=2"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert json.loads((run.path / "launch/job.json").read_text()) == api.jobs[name]
    assert run.status().phase is Phase.IDLE and run.runner == f"Kubernetes Job default/{name} (waiting)"
    run.stop()
    assert not api.jobs  # it had not begun


def test_a_refused_job_leaves_no_run(config: RunConfig, tmp_path: Path) -> None:
    api = Memory()
    api.refusal = LaunchError("Kubernetes refused the Job: exceeded quota")
    with pytest.raises(LaunchError, match="exceeded quota"):
        Run.start(config, tmp_path / "run", launcher=KubernetesJob(settings(tmp_path), api))
    assert read_launched(RunDirectory(tmp_path / "run")) is None
    with pytest.raises(FileNotFoundError):
        Run.open(tmp_path / "run")


def test_what_the_pod_would_not_see_is_refused_before_it_waits(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    launcher = KubernetesJob(settings(tmp_path / "shared"), Memory())
    with pytest.raises(LaunchError, match="the run directory .* is not below"):
        Run.start(config, tmp_path / "run", launcher=launcher)
    with pytest.raises(LaunchError, match="train_file .* is not below"):
        Run.start(config, tmp_path / "shared/run", launcher=launcher)


def test_a_cluster_that_does_not_answer_proves_nothing_and_is_not_pestered(tmp_path: Path) -> None:
    directory, api = RunDirectory(tmp_path / "run"), Memory()
    directory.create("train_file: t.jsonl\n")
    directory.write_status(Status(phase=Phase.TRAINING, step=3))
    api.refusal = Unreachable("connection refused")
    handle = KubernetesHandle(directory, InKubernetes(job="x", namespace="ml"), api)
    assert all(handle.alive() for _ in range(20))
    assert api.asked == 1
    assert handle.describe() == "Kubernetes Job ml/x (Kubernetes does not answer)"


def test_an_end_without_a_log_brings_the_pod_s_words(tmp_path: Path) -> None:
    directory, api = RunDirectory(tmp_path / "run"), Memory()
    directory.create("train_file: t.jsonl\n")
    api.jobs["x"] = {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}}
    ended = {"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    api.their_pods = [{"metadata": {"name": "p"}, "status": {"phase": "Failed", "containerStatuses": [ended]}}]
    handle = KubernetesHandle(directory, InKubernetes(job="x", namespace="ml"), api)
    assert not handle.alive()
    assert handle.ending() == "failed with exit code 1 (its pod printed: No module named ipytune)"


def failed(reason: str, *pods: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason}]}}, list(pods)


@pytest.mark.parametrize(
    ("job", "pods", "alive", "words"),
    [
        (None, [], False, "is no longer known to Kubernetes"),
        ({}, [], True, "waiting"),
        ({"status": {"active": 1}}, [RUNNING], True, "running"),
        (
            {},
            [
                {
                    "status": {
                        "phase": "Pending",
                        "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}],
                    }
                }
            ],
            True,
            "waiting: ErrImagePull",
        ),
        (
            {},
            [
                {
                    "status": {
                        "phase": "Pending",
                        "conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient gpu"}],
                    }
                }
            ],
            True,
            "waiting: Insufficient gpu",
        ),
        (
            {"status": {"conditions": [{"type": "Complete", "status": "True"}]}},
            [],
            False,
            "ended without a last word",
        ),
        (*failed("BackoffLimitExceeded", {"status": {"reason": "DeadlineExceeded"}}), False, "reached its walltime"),
        (
            *failed(
                "BackoffLimitExceeded",
                {
                    "status": {
                        "containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]
                    }
                },
            ),
            False,
            "ran out of memory (lower row_tokens, or ask for more memory)",
        ),
        (*failed("BackoffLimitExceeded", {"status": {"reason": "Evicted"}}), False, "failed (Evicted)"),
        (*failed("BackoffLimitExceeded"), False, "failed (BackoffLimitExceeded)"),
    ],
)
def test_a_job_s_state(job: dict[str, Any] | None, pods: list[dict[str, Any]], alive: bool, words: str) -> None:
    state = read(job, pods)
    assert (state.alive, state.words) == (alive, words)


@given(st.text(max_size=80))
def test_any_run_has_a_job_name(run_name: str) -> None:
    class Named(BaseModel):
        name: DnsName

    assert Named(name=job_name(run_name, "0a1b2c")).name.endswith("0a1b2c")


KUBECTL = """#!/bin/bash
here=$(dirname "$0")
printf '%s\\n' "$*" >> "$here/calls"
case "$2" in
  create) cat > "$here/created" ;;
  get) [ "$3" = pods ] && echo '{"items": []}' || cat "$here/job" 2>/dev/null ;;
  delete) echo 'Error from server (Forbidden): no' >&2; exit 1 ;;
esac
exit 0
"""


def test_kubectl_gets_lists_and_the_manifest_on_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(kubernetes_api.importlib.util, "find_spec", lambda name: None)
    api = kubernetes_api.connect()
    assert isinstance(api, Kubectl)
    body = manifest(settings(tmp_path), "x", ["/data/run"])
    api.create(body)
    assert json.loads((tmp_path / "created").read_text()) == body
    assert api.job("x", "ml") is None
    (tmp_path / "job").write_text(json.dumps(body))
    assert api.job("x", "ml") == body
    assert api.pods("x", "ml") == []
    with pytest.raises(Unreachable, match="Forbidden"):
        api.delete("x", "ml")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LaunchError, match=r"ipytune\[kubernetes\]"):
        kubernetes_api.connect()


class Server(BaseHTTPRequestHandler):
    """What the API answers to the client's calls, by the name of the Job; `heard` is what it was asked."""

    heard: list[str] = []

    def do_GET(self) -> None:
        self.heard.append(f"{self.command} {self.path}")
        self.rfile.read(int(self.headers.get("content-length") or 0))
        if "/log" in self.path:
            return self._answer(200, b"the last line\n", "text/plain")
        if "gone" in self.path or "full" in self.path:
            told = {"kind": "Status", "message": "exceeded quota"}
            return self._answer(404 if "gone" in self.path else 403, json.dumps(told).encode())
        found = {"items": [RUNNING]} if "/pods" in self.path else {"metadata": {"name": "x"}, "status": {"active": 1}}
        return self._answer(200, json.dumps(found).encode())

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_the_python_client_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kubernetes")
    server = HTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    api = kubernetes_api.connect()
    try:
        api.create(manifest(settings(tmp_path), "x", ["/data/run"]))
        with pytest.raises(LaunchError, match="refused the Job: exceeded quota"):
            api.create(manifest(settings(tmp_path, namespace="full"), "x", ["/data/run"]))
        assert read(api.job("x", "ml"), api.pods("x", "ml")).words == "running"
        assert api.job("gone", "ml") is None
        assert api.log("pod", "ml", 5) == "the last line\n"
        api.delete("x", "ml")
        api.delete("gone", "ml")
        with pytest.raises(Unreachable):
            api.job("x", "full")
    finally:
        server.shutdown()
        server.server_close()
    assert "DELETE /apis/batch/v1/namespaces/ml/jobs/x?propagationPolicy=Background" in Server.heard
    with pytest.raises(Unreachable):
        api.pods("x", "ml")


@pytest.mark.kubernetes
@pytest.mark.parametrize("gpus", [0, 4])
def test_the_real_server_accepts_the_manifest(kubernetes_cluster: KubernetesCluster, tmp_path: Path, gpus: int) -> None:
    more = {"gpus": gpus, "service_account": "trainer", "secret": "hub-token", "python": "/opt/session/bin/python"}
    body = manifest(settings(tmp_path, **more), job_name("a run", "0a1b2c"), ["/data/run", "--train=1"])
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    made = kubernetes_cluster.request("POST", "/apis/batch/v1/namespaces/default/jobs", params=query, json=body)
    assert made["spec"]["template"]["spec"]["containers"][0]["command"][0] == "/opt/session/bin/python"
