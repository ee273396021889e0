"""The few calls to Kubernetes that a launcher needs: by the `kubernetes` client, or by `kubectl`.

The client is an optional extra (`pip install 'ipytune[kubernetes]'`): it knows kubeconfig files, log-in plug-ins and a
pod's own service account, none of which we want to write again. Where it is not installed and kubectl is there, that
does the same. Objects are dictionaries as the API has them; nothing passes a shell.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol

from ipytune.runs.launch.base import LaunchError

COMMAND_SECONDS = 20


class Unreachable(RuntimeError):
    """The API did not answer, or does not let us ask: nothing is known."""


class JobApi(Protocol):
    def create(self, manifest: dict[str, Any]) -> None:
        """Raises LaunchError when it is refused."""

    def job(self, name: str, namespace: str) -> dict[str, Any] | None:
        """The Job; None when there is none. Raises Unreachable."""

    def pods(self, name: str, namespace: str) -> list[dict[str, Any]]:
        """The Job's pods. Raises Unreachable."""

    def log(self, pod: str, namespace: str, lines: int) -> str:
        """The last lines that the pod printed; empty when they cannot be had."""

    def delete(self, name: str, namespace: str) -> None:
        """The Job and its pods; SIGTERM first. None there is no error. Raises Unreachable."""


def connect() -> JobApi:
    """What this machine has; raises LaunchError with both remedies when it has neither."""
    if importlib.util.find_spec("kubernetes") is not None:
        return Client()
    if shutil.which("kubectl") is not None:
        return Kubectl()
    raise LaunchError(
        "A Kubernetes Job needs the Python client or kubectl, and neither is here: pip install 'ipytune[kubernetes]', "
        "or install kubectl. `ipytune export --to kubernetes` writes the manifest without them."
    )


class Client:
    """With the `kubernetes` package: $KUBECONFIG, ~/.kube/config, or a pod's service account."""

    def __init__(self) -> None:
        from kubernetes import client, config

        # Read now: the client itself looks at $KUBECONFIG when it is imported, before a notebook may have set it.
        file = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        try:
            if os.environ.get("KUBECONFIG") or Path(file).is_file():
                config.load_kube_config(config_file=file)
            else:
                config.load_incluster_config()
        except config.ConfigException as error:
            raise LaunchError(f"No Kubernetes cluster is configured here ({error}). Set KUBECONFIG.") from error
        self._jobs, self._core = client.BatchV1Api(), client.CoreV1Api()
        self._plain = client.ApiClient().sanitize_for_serialization
        self._refused = client.ApiException

    def create(self, manifest: dict[str, Any]) -> None:
        namespace = manifest["metadata"]["namespace"]
        try:
            self._call(self._jobs.create_namespaced_job, namespace, manifest)
        except self._refused as error:
            raise LaunchError(f"Kubernetes refused the Job: {_told(error.body or error.reason)}") from error
        except Unreachable as error:
            raise LaunchError(f"Kubernetes does not answer: {error}") from error

    def job(self, name: str, namespace: str) -> dict[str, Any] | None:
        try:
            return dict(self._call(self._jobs.read_namespaced_job, name, namespace))
        except self._refused as error:
            if error.status == 404:
                return None
            raise Unreachable(str(error.reason)) from error

    def pods(self, name: str, namespace: str) -> list[dict[str, Any]]:
        try:
            found = self._call(self._core.list_namespaced_pod, namespace, label_selector=f"job-name={name}")
        except self._refused as error:
            raise Unreachable(str(error.reason)) from error
        return list(found["items"])

    def log(self, pod: str, namespace: str, lines: int) -> str:
        try:
            return str(self._call(self._core.read_namespaced_pod_log, pod, namespace, tail_lines=lines))
        except (self._refused, Unreachable):
            return ""

    def delete(self, name: str, namespace: str) -> None:
        try:
            self._call(self._jobs.delete_namespaced_job, name, namespace, propagation_policy="Background")
        except self._refused as error:
            if error.status != 404:
                raise Unreachable(str(error.reason)) from error

    def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        from urllib3.exceptions import HTTPError

        try:
            return self._plain(method(*arguments, _request_timeout=COMMAND_SECONDS, **options))
        except HTTPError as error:
            raise Unreachable(str(error)) from error


class Kubectl:
    """With kubectl and its current context."""

    def create(self, manifest: dict[str, Any]) -> None:
        code, _, error = self._run("create", "--filename=-", stdin=json.dumps(manifest))
        if code:
            raise LaunchError(f"Kubernetes refused the Job: {_told(error)}")

    def job(self, name: str, namespace: str) -> dict[str, Any] | None:
        found = self._get(f"jobs/{name}", namespace, "--ignore-not-found")
        return dict(json.loads(found)) if found.strip() else None

    def pods(self, name: str, namespace: str) -> list[dict[str, Any]]:
        return list(json.loads(self._get("pods", namespace, f"--selector=job-name={name}"))["items"])

    def log(self, pod: str, namespace: str, lines: int) -> str:
        code, output, _ = self._run("logs", pod, f"--namespace={namespace}", f"--tail={lines}")
        return "" if code else output

    def delete(self, name: str, namespace: str) -> None:
        options = ("--ignore-not-found", "--wait=false")
        code, _, error = self._run("delete", f"jobs/{name}", f"--namespace={namespace}", *options)
        if code:
            raise Unreachable(_told(error))

    def _get(self, what: str, namespace: str, *options: str) -> str:
        code, output, error = self._run("get", what, f"--namespace={namespace}", "--output=json", *options)
        if code:
            raise Unreachable(_told(error))
        return output

    def _run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        command = ["kubectl", f"--request-timeout={COMMAND_SECONDS}s", *arguments]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=COMMAND_SECONDS + 10, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return 1, "", str(error)
        return done.returncode, done.stdout, done.stderr


def _told(answer: str) -> str:
    """The message of an API's answer, be it its JSON or what kubectl printed."""
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return str(answer).strip() or "it gave no reason"
