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

__all__ = ["kubernetes_cluster", "private_cluster", "slurm_cluster"]

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
