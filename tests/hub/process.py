"""A real hub of this tree as a process of its own, as `make run` starts it, on a free block of ports."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User

ROOT = Path(__file__).parents[2]


def free_ports(count: int) -> int:
    """The first of `count` neighbouring TCP ports that are free now."""
    for base in range(20000 + os.getpid() % 5000, 60000, count):
        try:
            for port in range(base, base + count):
                with socket.socket() as probe:
                    probe.bind(("0.0.0.0", port))
            return base
        except OSError:
            continue
    raise OSError("no free ports")


class Hub:
    """`site` is the content of a site file; everything the hub writes is below `directory`."""

    def __init__(self, site: dict[str, Any], directory: Path, environment: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        site_file = directory / "site.yaml"
        hub = site.get("hub", {})
        connect = hub.get("connect_url")
        hub = {**hub, "port": self.port, "hub_port": self.port + 1}
        if connect:
            hub["connect_url"] = connect.format(port=self.port + 1)
        site_file.write_text(yaml.safe_dump({**site, "hub": hub}))
        self._environment = {
            **os.environ,
            **(environment or {}),
            "OBERALP_SITE": str(site_file),
            "OBERALP_STATE": str(directory / "state"),
            "OBERALP_PORT": str(self.port),
            "OBERALP_LOG": "DEBUG",
        }

    @property
    def log(self) -> str:
        return (self.directory / "hub.log").read_text(errors="replace")

    def start(self, seconds: float = 60) -> "Hub":
        with (self.directory / "hub.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(ROOT / "jupyterhub_config.py")],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            if not wait_for(self._answers, seconds, 0.2):
                raise AssertionError(f"the hub does not answer:\n{self.log[-4000:]}")
        except BaseException:  # nobody else knows of it: the caller gets no hub
            self._process.kill()
            self.close()
            raise
        return self

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"the hub ended with {self._process.returncode}:\n{self.log[-4000:]}")
        try:
            return httpx.get(f"{self.url}/hub/api/", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self, sig: signal.Signals = signal.SIGTERM, seconds: float = 30) -> None:
        """End the hub's own process (sessions stay, as at a site); the proxy goes with SIGTERM and is reused after SIGKILL."""
        if self._process is None:
            return
        self._process.send_signal(sig)
        self._process.wait(seconds)
        self._process = None

    def close(self) -> None:
        """End the hub and whatever it left: its proxy, by the pid file."""
        self.stop()
        pid_file = self.directory / "state" / "proxy.pid"
        if pid_file.exists():
            try:
                os.kill(int(pid_file.read_text().split()[0]), signal.SIGTERM)
            except (ProcessLookupError, ValueError):
                pass

    def login(self, name: str) -> User:
        admin = name == "admin"
        password = (self.directory / "state" / ("admin_password" if admin else "password")).read_text().strip()
        return User(self.url, name, password)
