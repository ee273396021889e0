"""A Kubernetes cluster as tests see it: a few blocking calls to its API, with the credentials of a kubeconfig.

No kubectl, and no client library whose event loop would have to be shared with the hub under test.
"""

import base64
import contextlib
import ssl
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from tests.clusters.slurm.processes import wait_for

GPU = "nvidia.com/gpu"
HOST_IMAGE = "docker.io/oberalp/host:1"  # empty; its pods mount this machine's own programs (`host_volumes`)
_NO_IMAGE = frozenset({"ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"})
_HOST_DIRECTORIES = ("/usr", "/lib", "/lib64", "/bin", "/etc")


class KubernetesUnavailable(RuntimeError):
    """There is no cluster to be used: the file is wrong, or nothing answers."""


class Credentials(NamedTuple):
    """What a kubeconfig's current context says: the server's URL, how to trust it, who we are."""

    server: str
    context: ssl.SSLContext
    token: str | None

    @classmethod
    def of(cls, kubeconfig: Path) -> "Credentials":
        """Tokens and client certificates; raises KubernetesUnavailable for anything else (log-in plug-ins)."""
        try:
            config = yaml.safe_load(kubeconfig.read_text())
            context = _named(config["contexts"], config["current-context"])["context"]
            cluster = _named(config["clusters"], context["cluster"])["cluster"]
            user = _named(config["users"], context["user"])["user"]
        except (OSError, yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
            raise KubernetesUnavailable(f"{kubeconfig} is no kubeconfig with a current context ({error!r})") from error
        trust = ssl.create_default_context(cadata=_authority(cluster))
        if cluster.get("insecure-skip-tls-verify"):
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        if certificate := _material(user, "client-certificate"):
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # mode 600; the ssl module reads files only
                file.write(certificate + b"\n" + (_material(user, "client-key") or b""))
                file.flush()
                trust.load_cert_chain(file.name)
        elif not user.get("token"):
            raise KubernetesUnavailable(f"{kubeconfig}: user {context['user']} has neither token nor certificate")
        return cls(cluster["server"], trust, user.get("token"))


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _material(entry: Mapping[str, str], key: str) -> bytes | None:
    """`KEY-data` (base64) or the file that `KEY` names."""
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data)
    return Path(entry[key]).read_bytes() if key in entry else None


def _authority(cluster: Mapping[str, str]) -> str | None:
    material = _material(cluster, "certificate-authority")
    return material.decode() if material else None


class KubernetesCluster:
    """The cluster of `kubeconfig`. Every method blocks; `httpx.HTTPStatusError` tells of a refusal, with its reason."""

    host_image = HOST_IMAGE

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        credentials = Credentials.of(kubeconfig)
        self._http = httpx.Client(
            base_url=credentials.server,
            verify=credentials.context,
            headers={"Authorization": f"Bearer {credentials.token}"} if credentials.token else {},
            timeout=30,
            trust_env=False,
        )

    def __enter__(self) -> "KubernetesCluster":
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def check(self) -> None:
        """Raise KubernetesUnavailable unless the API answers and a node is ready."""
        try:
            if not self._ready_nodes():
                raise KubernetesUnavailable(f"no node of {self.kubeconfig} is ready")
        except httpx.HTTPError as error:
            raise KubernetesUnavailable(f"the API of {self.kubeconfig} does not answer: {error}") from error

    # -- the API ---------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, **options: Any) -> Any:
        """One call: the decoded JSON, or the text of an answer that is none. Options as of `httpx.request`."""
        answer = self._http.request(method, path, **options)
        if answer.is_error:
            raise httpx.HTTPStatusError(f"{method} {path}: {answer.text}", request=answer.request, response=answer)
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

    def get(self, path: str, **query: str) -> Any:
        return self.request("GET", path, params=query)

    # -- nodes -------------------------------------------------------------------------------------------------------

    def nodes(self) -> list[dict[str, Any]]:
        return self.get("/api/v1/nodes")["items"]

    @property
    def node_ip(self) -> str:
        """The first ready node's address: where a pod reaches a server of this machine, if node and machine are one."""
        addresses = self._ready_nodes()[0]["status"]["addresses"]
        return next(entry["address"] for entry in addresses if entry["type"] == "InternalIP")

    def allocatable_gpus(self) -> int:
        """`nvidia.com/gpu` of all ready nodes, used or not."""
        return sum(int(node["status"]["allocatable"].get(GPU, 0)) for node in self._ready_nodes())

    def _ready_nodes(self) -> list[dict[str, Any]]:
        def ready(node: dict[str, Any]) -> bool:
            return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))

        return [node for node in self.nodes() if ready(node)]

    # -- pods --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def namespace(self) -> Iterator[str]:
        """A new, empty namespace in which pods can be made; it goes with everything in it."""
        name = f"oberalp-{uuid.uuid4().hex[:8]}"
        self.request("POST", "/api/v1/namespaces", json={"metadata": {"name": name}})
        try:
            # Refused until the controllers have given the namespace its service account.
            if not wait_for(lambda: self._accepts_pods(name), 30, 0.1):
                raise TimeoutError(f"namespace {name} takes no pods after 30 s")
            yield name
        finally:
            self.request("DELETE", f"/api/v1/namespaces/{name}")

    def _accepts_pods(self, namespace: str) -> bool:
        pods = f"/api/v1/namespaces/{namespace}/pods"
        probe = pod_manifest("probe", ["probe"])
        return self._http.post(pods, params={"dryRun": "All"}, json=probe).is_success

    def has_image(self, name: str) -> bool:
        """Whether the node that a pod gets holds the image `name`; asked with a pod (the node's own list lags)."""
        with self.namespace() as namespace:
            pod = self.create_pod(pod_manifest(name, ["/"]), namespace)  # "/": cannot run, need not

            def reason() -> str:
                statuses = (self.pod(pod, namespace) or {})["status"].get("containerStatuses", [{}])
                told = [state.get("reason", "") for state in statuses[0].get("state", {}).values()]
                return "" if not told or told[0] == "ContainerCreating" else told[0]

            if not wait_for(lambda: bool(reason()), 30, 0.1):
                raise TimeoutError(f"a pod of {name} was neither started nor refused within 30 s")
            return reason() not in _NO_IMAGE

    def pods(self, namespace: str = "default", selector: str = "") -> list[dict[str, Any]]:
        """Pods of a namespace, optionally only those that `selector` (`label=value,...`) matches."""
        return self.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)["items"]

    def create_pod(self, manifest: Mapping[str, Any], namespace: str = "default") -> str:
        """Create the pod and return its name."""
        created = self.request("POST", f"/api/v1/namespaces/{namespace}/pods", json=manifest)
        return created["metadata"]["name"]

    def pod(self, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """The pod, or None when there is none of that name."""
        try:
            return self.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 404:
                return None
            raise

    def phase(self, name: str, namespace: str = "default") -> str | None:
        pod = self.pod(name, namespace)
        return pod["status"].get("phase") if pod else None

    def logs(self, name: str, namespace: str = "default") -> str:
        return str(self.get(f"/api/v1/namespaces/{namespace}/pods/{name}/log"))

    def events(self, namespace: str = "default") -> list[dict[str, Any]]:
        return self.get(f"/api/v1/namespaces/{namespace}/events")["items"]

    def delete_pod(self, name: str, namespace: str = "default", seconds: float = 60) -> None:
        """Delete at once (no grace) and wait until it is gone."""
        with contextlib.suppress(httpx.HTTPStatusError):  # gone already
            self.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", params={"gracePeriodSeconds": "0"})
        if not wait_for(lambda: self.pod(name, namespace) is None, seconds, 0.2):
            raise TimeoutError(f"pod {namespace}/{name} is still there {seconds:.0f} s after its deletion")

    def wait_for_phase(self, name: str, *phases: str, namespace: str = "default", seconds: float = 60) -> str:
        """The phase reached; TimeoutError with the pod's conditions and the namespace's events when none is."""
        if not wait_for(lambda: self.phase(name, namespace) in phases, seconds, 0.2):
            status = (self.pod(name, namespace) or {}).get("status")
            told = [f"{event['reason']}: {event['message']}" for event in self.events(namespace)]
            raise TimeoutError(f"pod {name} not {' or '.join(phases)} after {seconds:.0f} s: {status}; events: {told}")
        return self.phase(name, namespace) or ""

    def run(self, manifest: Mapping[str, Any], namespace: str = "default", seconds: float = 120) -> tuple[int, str]:
        """Run a pod to its end and remove it: exit code of its first container, and its log."""
        name = self.create_pod(manifest, namespace)
        try:
            self.wait_for_phase(name, "Succeeded", "Failed", namespace=namespace, seconds=seconds)
            pod = self.pod(name, namespace) or {}
            ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
            return ended["exitCode"], self.logs(name, namespace)
        finally:
            self.delete_pod(name, namespace)


def pod_manifest(image: str, command: list[str], **spec: Any) -> dict[str, Any]:
    """A pod of one container that runs `command` once; `spec` goes into the container (`resources`, `env`, ...).

    The image is never pulled: test clusters hold what was loaded into them.
    """
    container = {"name": "main", "image": image, "imagePullPolicy": "Never", "command": command, **spec}
    return {
        "metadata": {"generateName": "test-"},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]},
    }


def host_volumes(*more: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts that give a pod of HOST_IMAGE this machine's programs, this Python, and the paths `more`."""
    python = [sys.prefix, sys.base_prefix]
    paths = [path for path in dict.fromkeys([*_HOST_DIRECTORIES, *python, *more]) if Path(path).exists()]
    outer = [path for path in paths if not any(path != other and path.startswith(f"{other}/") for other in paths)]
    volumes = [{"name": f"host-{i}", "hostPath": {"path": path}} for i, path in enumerate(outer)]
    mounts = [{"name": f"host-{i}", "mountPath": path, "readOnly": True} for i, path in enumerate(outer)]
    return volumes, mounts
