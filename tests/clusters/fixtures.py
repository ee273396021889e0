"""Session fixtures of the real clusters: the one that the environment names, else one of our own, else a skip."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters.kubernetes import KubernetesCluster, KubernetesUnavailable
from tests.clusters.requirement import unavailable
from tests.clusters.slurm import ClusterError, SlurmCluster, SlurmSpec

__all__ = ["CLAIM", "kubernetes_cluster", "private_cluster", "shared_claim", "slurm_cluster"]

CLAIM = "runs"

SLURM_REMEDY = (
    "as root, apt-get install slurmctld slurmd slurm-client munge "
    '(and slurmdbd slurmrestd slurm-wlm-jwt-plugin mariadb-server), or eval "$(python -m tests.clusters.slurm up)"'
)
KUBERNETES_REMEDY = "set KUBECONFIG to a cluster's file (kind, minikube, k3s; see docs/administrator/images.md)"


@contextlib.contextmanager
def private_cluster(spec: SlurmSpec) -> Iterator[SlurmCluster]:
    """A cluster of one's own, gone afterwards; skips when it cannot be had."""
    with tempfile.TemporaryDirectory(prefix="oberalp-slurm-") as directory:
        Path(directory).chmod(0o755)  # jobs run as other users, who look up the configuration in it
        cluster = SlurmCluster(spec, Path(directory) / "state")
        try:
            cluster.up()
        except ClusterError as error:
            unavailable("slurm", str(error), SLURM_REMEDY)
        try:
            yield cluster
        finally:
            cluster.down()


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """The cluster of the environment ($OBERALP_SLURM=1, left running), else four nodes of four GPUs for this run."""
    if os.environ.get("OBERALP_SLURM") == "1":
        cluster = SlurmCluster()
        if not cluster.running:
            unavailable("slurm", f"OBERALP_SLURM=1, but {cluster.layout.root} has no healthy cluster", SLURM_REMEDY)
        yield cluster
        return
    with private_cluster(SlurmSpec()) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kubernetes_cluster() -> Iterator[KubernetesCluster]:
    """The cluster of $KUBECONFIG, which must answer."""
    if not os.environ.get("KUBECONFIG"):
        unavailable("kubernetes", "KUBECONFIG is not set", KUBERNETES_REMEDY)
    try:
        cluster = KubernetesCluster(Path(os.environ["KUBECONFIG"]))
        cluster.check()
    except KubernetesUnavailable as error:
        unavailable("kubernetes", str(error), KUBERNETES_REMEDY)
    with cluster:
        yield cluster


@pytest.fixture
def shared_claim(kubernetes_cluster: KubernetesCluster, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder of this machine, and the namespace in which the claim CLAIM is that folder."""
    folder = tmp_path / "shared"
    folder.mkdir()
    with kubernetes_cluster.namespace() as namespace:
        volume = f"{namespace}-{CLAIM}"
        claim = {"storageClassName": "", "accessModes": ["ReadWriteMany"]}
        spec = {**claim, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(folder)}}
        body = {"metadata": {"name": volume}, "spec": spec}
        kubernetes_cluster.request("POST", "/api/v1/persistentvolumes", json=body)
        try:
            spec = {**claim, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}}
            path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
            kubernetes_cluster.request("POST", path, json={"metadata": {"name": CLAIM}, "spec": spec})
            yield folder, namespace
        finally:
            kubernetes_cluster.request("DELETE", f"/api/v1/persistentvolumes/{volume}")
