"""A login node for tests: OpenSSH's sshd in the foreground, on 127.0.0.1, with its own keys, port and configuration."""

import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.clusters.requirement import unavailable
from tests.clusters.slurm.processes import wait_for

REMEDY = "as root, apt-get install openssh-server"


class LoginNode:
    """Use as a context manager; only root may write into `directory`. `variables` are those of its sessions.

    Any account of this machine may log in with `key_file`.
    """

    host = "127.0.0.1"

    def __init__(self, directory: Path, variables: Mapping[str, str]) -> None:
        self._program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if self._program is None:
            unavailable("slurm", "sshd is not installed", REMEDY)
        self._directory, self._variables = directory, variables
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.key_file, self.known_hosts = directory / "client", directory / "known_hosts"

    def __enter__(self) -> "LoginNode":
        host_key = self._directory / "host"
        for key in (host_key, self.key_file):
            key.unlink(missing_ok=True)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        public = (self._directory / "host.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {' '.join(public)}\n")
        shutil.copy(self._directory / "client.pub", self._directory / "authorized")
        variables = " ".join(f'"{name}={value}"' for name, value in self._variables.items())
        options = [
            f"ListenAddress {self.host}:{self.port}",
            f"HostKey {host_key}",
            f"AuthorizedKeysFile {self._directory}/authorized",
            f"PidFile {self._directory}/pid",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "StrictModes no",  # the system's directory for temporary files is everybody's
            "UsePAM no",
            "UseDNS no",
            f"SetEnv {variables}" if variables else "",
        ]
        (self._directory / "config").write_text("\n".join(options) + "\n")
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd confines its unprivileged half
        assert self._program is not None
        with (self._directory / "log").open("ab") as log:
            arguments = ["-D", "-e", "-f", str(self._directory / "config")]
            self._process = subprocess.Popen([self._program, *arguments], stderr=log, start_new_session=True)
        if not wait_for(self._listens, 10):
            raise RuntimeError(f"sshd does not listen: {(self._directory / 'log').read_text()[-500:]}")

    def stop(self) -> None:
        """End sshd and every connection to it."""
        if self._process is not None:
            children = subprocess.run(
                ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False
            ).stdout.split()
            self._process.terminate()
            self._process.wait(10)
            subprocess.run(["kill", *children], check=False, stderr=subprocess.DEVNULL) if children else None
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
