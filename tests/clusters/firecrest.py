"""FirecREST's own server (github.com/eth-cscs/firecrest-v2) in front of a test Slurm, if its source is at hand.

$OBERALP_FIRECREST_SERVER is a checkout of it; $OBERALP_FIRECREST_PYTHON an interpreter that has its requirements.txt.
It reaches Slurm over SSH as the account of the token, and trusts the tokens of one OidcProvider.
"""

import os
import socket
import subprocess
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import yaml

from tests.clusters.oidc import OidcProvider
from tests.clusters.requirement import unavailable
from tests.clusters.slurm.processes import wait_for
from tests.clusters.sshd import LoginNode

REMEDY = (
    "git clone https://github.com/eth-cscs/firecrest-v2, install its requirements.txt into an environment of its own, "
    "and set OBERALP_FIRECREST_SERVER to the checkout, OBERALP_FIRECREST_PYTHON to that environment's python"
)
SYSTEM = "test"


class FirecrestServer:
    """Use as a context manager; `directory` is for its configuration and log."""

    def __init__(self, directory: Path, oidc: OidcProvider, node: LoginNode) -> None:
        source, python = os.environ.get("OBERALP_FIRECREST_SERVER"), os.environ.get("OBERALP_FIRECREST_PYTHON")
        if not source or not python:
            unavailable("firecrest", "OBERALP_FIRECREST_SERVER is not set", REMEDY)
        self._source, self._python, self._directory = Path(source) / "src", python, directory
        self._configuration = configuration(oidc, node)
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "FirecrestServer":
        file = self._directory / "firecrest.yaml"
        file.write_text(yaml.safe_dump(self._configuration))
        arguments = ["-m", "uvicorn", "firecrest.main:app", "--host", "127.0.0.1", "--port", str(self._port)]
        with (self._directory / "firecrest.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._python, *arguments],
                cwd=self._source,
                env={"PATH": os.defpath, "YAML_CONFIG_FILE": str(file), "PYTHONPATH": str(self._source)},
                stdout=log,
                stderr=log,
            )
        if not wait_for(self._answers, 60, 0.2):
            self.__exit__()
            raise RuntimeError(f"FirecREST does not start: {(self._directory / 'firecrest.log').read_text()[-2000:]}")
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/status/liveness/", timeout=2) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False


def configuration(oidc: OidcProvider, node: LoginNode) -> dict[str, object]:
    """The server's settings: one Slurm behind one login node, and the key of one account."""
    probing = {"interval_check": 3600, "startup_grace_period": 3600, "services": {}}
    timeouts = {"connection": 5, "login": 5, "command_execution": 25, "idle_timeout": 60, "keep_alive": 5}
    return {
        "auth": {
            "authentication": {
                "scopes": {},
                "tokenUrl": oidc.token_url,
                "tokenEndpointAuthMethod": "client_secret_post",
                "publicCerts": [f"{oidc.url}/certs"],
                "usernameClaim": "sub",
            }
        },
        "ssh_credentials": {
            "type": "SSHStaticKeys",
            "keys": {oidc.account: {"private_key": node.key_file.read_text()}},
        },
        "clusters": [
            {
                "name": SYSTEM,
                "ssh": {"host": node.host, "port": node.port, "max_clients": 50, "timeout": timeouts},
                "scheduler": {"type": "slurm", "version": "22.05.8", "timeout": 25, "connection_mode": "ssh"},
                "service_account": {"client_id": oidc.client_id, "secret": oidc.client_secret},
                "probing": probing,
                "file_systems": [{"path": "/tmp", "data_type": "users", "default_work_dir": True}],
            }
        ],
    }
