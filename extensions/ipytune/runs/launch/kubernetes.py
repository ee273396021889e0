"""A Kubernetes Job runs it: one pod, with the run directory on a volume that is mounted here too.

- The manifest lies in the run directory (launch/job.json) and is what was submitted.
- Deleting the Job, or its deadline, sends the trainer SIGTERM and leaves it two minutes: it checkpoints and says so.
- The cluster is asked when the run has been quiet for a while. One that does not answer proves nothing.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from ipytune.lora.config import RunConfig
from ipytune.runs.directory import RunDirectory, replace_text
from ipytune.runs.launch.base import (
    Handle,
    InKubernetes,
    LaunchError,
    launch_folder,
    write_launched,
)
from ipytune.runs.launch.kubernetes_answers import SILENT, JobState, read
from ipytune.runs.launch.kubernetes_api import JobApi, Unreachable, connect
from ipytune.runs.launch.manifest import job_name, manifest
from ipytune.runs.launch.scheduled import JobHandle
from ipytune.runs.launch.settings import NOTICE_SECONDS, KubernetesSettings

_LOG_LINES = 10


class KubernetesJob:
    """Launcher: one Job. The run directory, data and a model directory must lie below settings.mount."""

    def __init__(self, settings: KubernetesSettings, api: Callable[[], JobApi] = connect) -> None:
        self.settings = settings
        self._api = api

    def start(self, directory: RunDirectory) -> Handle:
        check_reachable(directory, self.settings.mount)
        check_tracker(directory, self.settings)
        api = self._api()
        name = job_name(directory.path.name, secrets.token_hex(3))
        body = manifest(self.settings, name, [str(directory.path), f"--train={self.settings.trainers}"])
        launch_folder(directory).mkdir(parents=True, exist_ok=True)
        replace_text(launch_folder(directory) / "job.json", json.dumps(body, indent=1))
        launched = InKubernetes(job=name, namespace=self.settings.namespace)
        write_launched(directory, launched)  # before: the name is ours, so nothing can be lost
        try:
            api.create(body)
        except LaunchError:
            write_launched(directory, None)
            raise
        return KubernetesHandle(directory, launched, self._api)


class KubernetesHandle(JobHandle[JobState]):
    ending_seconds = NOTICE_SECONDS + 30
    not_gone = "was deleted, and is not gone yet. Look with kubectl get pods."

    def __init__(self, directory: RunDirectory, launched: InKubernetes, api: Callable[[], JobApi] = connect) -> None:
        super().__init__(directory, SILENT)
        self._launched = launched
        self._api = api

    def ending(self) -> str:
        told = "" if self._directory.log_tail(1) else self._pod_log()
        return self._last.words + (f" (its pod printed: {told})" if told else "")

    def withdraw(self) -> None:
        self._ask()
        if self._last.waiting:
            self._end()

    def describe(self) -> str:
        return self._name + (f" ({self._last.words})" if self.alive() else "")

    @property
    def _name(self) -> str:
        return f"Kubernetes Job {self._launched.namespace}/{self._launched.job}"

    def _asked(self) -> JobState:
        try:
            api = self._api()
            job = api.job(self._launched.job, self._launched.namespace)
            return read(job, api.pods(self._launched.job, self._launched.namespace))
        except (LaunchError, Unreachable):
            return SILENT

    def _end(self) -> None:
        try:
            self._api().delete(self._launched.job, self._launched.namespace)
        except Unreachable as error:
            raise LaunchError(f"{self._name} could not be deleted: {error}. Try again later.") from error

    def _pod_log(self) -> str:
        try:
            api = self._api()
            pods = api.pods(self._launched.job, self._launched.namespace)
            return api.log(pods[-1]["metadata"]["name"], self._launched.namespace, _LOG_LINES).strip() if pods else ""
        except (LaunchError, Unreachable):
            return ""


def check_reachable(directory: RunDirectory, mount: str) -> None:
    """Refuses a run whose directory or files the pod would not see: it would fail after it had waited for a GPU."""
    config = RunConfig.from_yaml(directory.config)
    model = {"model": config.model} if config.model.startswith("/") else {}
    wanted: dict[str, Any] = {"the run directory": directory.path, "train_file": config.train_file, **model}
    if config.eval_file is not None:
        wanted["eval_file"] = config.eval_file
    for what, path in wanted.items():
        if not PurePosixPath(path).is_relative_to(mount):
            raise LaunchError(
                f"{what} ({path}) is not below {mount}, the only directory that the Job shares with this session. Put "
                f"it there, or name the volume's path with `mount`."
            )


def check_tracker(directory: RunDirectory, settings: KubernetesSettings) -> None:
    """Refuses a run that would look for its MLflow server in vain: it is known to this session and not to the pod."""
    tracks = "mlflow" in RunConfig.from_yaml(directory.config).track
    if tracks and os.environ.get("MLFLOW_TRACKING_URI") and settings.secret is None:
        raise LaunchError(
            f"track: mlflow: the pod gets nothing of this session's environment, so it would not know the server. Put "
            f"MLFLOW_TRACKING_URI, and its token or user and password, into a file of NAME=value lines, make a Secret "
            f"of it (kubectl create secret generic tracking --namespace={settings.namespace} --from-env-file=FILE), "
            f"and name that with `secret`."
        )
