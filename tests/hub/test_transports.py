"""Whole sessions over the other ways to Slurm: a hub that starts one on a cluster it reaches by SSH, REST or FirecREST."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hybridspawner.targets.slurm.cli import LAUNCHER
from tests.clusters.firecrest import SYSTEM, FirecrestServer
from tests.clusters.fixtures import private_cluster
from tests.clusters.oidc import OidcProvider
from tests.clusters.slurm import SlurmCluster, SlurmSpec
from tests.clusters.slurm.processes import wait_for
from tests.clusters.sshd import LoginNode
from tests.hub.process import Hub
from tests.hub.sites import clusters_site

pytestmark = pytest.mark.slurm

CELL = "import json, os; print(json.dumps({k: os.environ.get(k) for k in ('CUDA_VISIBLE_DEVICES', 'SLURM_JOB_ID')}))"


def transport(kind: str, stack: ExitStack, directory: Path, cluster: SlurmCluster) -> dict[str, Any]:
    if kind == "rest":
        return {
            **{"kind": "rest", "url": cluster.env["SLURM_REST_URL"], "user": "root"},
            "jwt_key_file": str(cluster.layout.jwt_key),
        }
    node = stack.enter_context(LoginNode(directory, {"SLURM_CONF": str(cluster.layout.conf)}))
    if kind == "ssh":
        return {
            **{"kind": "ssh", "host": node.host, "port": node.port, "user": "root", "key_file": str(node.key_file)},
            **{"known_hosts": str(node.known_hosts), "launcher": str(LAUNCHER)},
            "variables": {"SLURM_CONF": str(cluster.layout.conf)},
        }
    oidc = stack.enter_context(OidcProvider("root"))
    (directory / "secret").write_text(oidc.client_secret)
    server = stack.enter_context(FirecrestServer(directory, oidc, node))
    return {
        **{"kind": "firecrest", "url": server.url, "system": SYSTEM, "token_url": oidc.token_url},
        **{"client_id": oidc.client_id, "client_secret_file": str(directory / "secret"), "gpus_per_node": {"gh200": 4}},
    }


@pytest.fixture(scope="module")
def rest_cluster() -> Iterator[SlurmCluster]:
    with private_cluster(SlurmSpec(nodes=1, rest=True)) as cluster:
        yield cluster


@pytest.fixture(params=["ssh", "rest", "firecrest"])
def remote_hub(request: pytest.FixtureRequest, rest_cluster: SlurmCluster) -> Iterator[Hub]:
    """A hub without any of Slurm's commands on its PATH."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="oberalp-transport-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        site = clusters_site(slurm=True)
        (target,) = (t for t in site["targets"] if t["name"] == "slurm")
        target["home"] = str(directory / "{username}")
        target["transport"] = transport(request.param, stack, directory, rest_cluster)
        target["bin"] = None
        (directory / "curie").mkdir()
        hub = Hub(site, directory / "hub", {"SLURM_CONF": "/nowhere"})
        stack.callback(hub.close)
        yield hub.start()


def test_a_session_on_a_cluster_that_is_elsewhere(remote_hub: Hub, rest_cluster: SlurmCluster) -> None:
    user = remote_hub.login("curie")
    user.start({"profile": "gpu-1", "target": "slurm"})
    seen = json.loads(user.run_cell(CELL))
    assert seen["CUDA_VISIBLE_DEVICES"] in {"0", "1", "2", "3"}
    user.stop()
    job = seen["SLURM_JOB_ID"]
    assert wait_for(lambda: rest_cluster.job_state(job) not in ("PENDING", "RUNNING", "COMPLETING"), 20)
    assert user.token not in remote_hub.log
