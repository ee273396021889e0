"""A running hub for the tests: one for the whole run, with every target that this machine has."""

from collections.abc import Iterator

import pytest

from tests.clusters.kubernetes import KubernetesCluster
from tests.clusters.slurm import SlurmCluster
from tests.hub.process import Hub
from tests.hub.sites import clusters_site


def _or_none(request: pytest.FixtureRequest, fixture: str) -> object | None:
    try:
        return request.getfixturevalue(fixture)
    except pytest.skip.Exception:  # a test that needs it skips by asking for it itself
        return None


@pytest.fixture(scope="session")
def hub(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The test site, with Slurm and Kubernetes where they can be had."""
    slurm = _or_none(request, "slurm_cluster")
    kubernetes = _or_none(request, "kubernetes_cluster")
    assert slurm is None or isinstance(slurm, SlurmCluster)
    assert kubernetes is None or isinstance(kubernetes, KubernetesCluster)
    directory = tmp_path_factory.mktemp("hub")
    site = clusters_site(kubernetes, slurm is not None)
    for target in site["targets"]:
        if target["name"] == "slurm":
            target["home"] = str(directory / "slurm-home" / "{username}")
    environment = dict(slurm.env) if slurm is not None else {}
    if kubernetes is not None:
        environment["KUBECONFIG"] = str(kubernetes.kubeconfig)
    running = Hub(site, directory, environment).start()
    try:
        yield running
    finally:
        running.close()
