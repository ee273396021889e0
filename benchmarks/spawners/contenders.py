"""Hubs to compare: ours, and JupyterHub with the stock spawner of each target, all with the same light session server.

A contender is a configuration and the options that a start sends. Each runs as a hub process of its own, with its own
ports and directory. Limits on starts at a time are off everywhere, and time-outs are the same, so that what differs is
the spawner.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from jupyterhub import __version__ as jupyterhub_version

from hybridspawner import proxy as node_proxy
from hybridspawner.site import SlurmTarget
from tests.clusters.kubernetes import HOST_IMAGE, KubernetesCluster, host_volumes
from tests.clusters.slurm.processes import wait_for
from tests.hub.process import ROOT, free_ports
from tests.hub.sites import clusters_site

LIGHT_SERVER = Path(__file__).with_name("light_server.py").resolve()
USER = "root"  # batchspawner asks the system for its users' homes, and the benchmarks run as root
START_TIMEOUT = 3600
WRAPSPAWNER_PATH = "OBERALP_WRAPSPAWNER"


@dataclass(frozen=True)
class Setting:
    """What a start is like, for every contender. `slow_node`: seconds a job takes before its server is run."""

    gpus: int = 1
    slow_node: float = 0
    slow_server: float = 0
    pod_cpus: float = 0.2
    poll_seconds: int = 30  # JupyterHub's default; how often the hub asks a spawner whether its session runs


@dataclass(frozen=True)
class Contender:
    name: str
    kind: str  # slurm or kubernetes
    config: str = field(repr=False)
    options: dict[str, Any]
    poll_seconds: int
    missing: str = ""
    """Why it cannot be run here; "" if it can."""


def ours(
    directory: Path, setting: Setting, kubernetes: KubernetesCluster | None = None, namespace: str = ""
) -> Contender:
    """HybridSpawner on Slurm or, if a cluster is given, on Kubernetes; through this tree's jupyterhub_config.py."""
    site = clusters_site(kubernetes, slurm=kubernetes is None)
    (target,) = [t for t in site["targets"] if t["name"] != "local"]
    site["targets"] = [target]
    target["start_timeout"] = START_TIMEOUT
    if "starts_at_a_time" in SlurmTarget.model_fields:
        target["starts_at_a_time"] = 10_000
    gpus = {"gpus": setting.gpus, "gpu_type": "gh200"} if setting.gpus and kubernetes is None else {}
    resources = {"cpus": 1, "memory_gb": 1, **gpus}
    site["profiles"] = [
        {
            "name": "bench",
            "title": "Bench",
            "resources": resources,
            "runtime": {"default": "02:00:00", "max": "02:00:00"},
        }
    ]
    site["defaults"] = {"profile": "bench"}
    environment = site["environments"][0]
    site["environments"] = [environment]
    if kubernetes is None:
        target["home"] = str(directory / "home" / "{username}")
        stand_in = _stand_in(directory)
        prologue = f"sleep {setting.slow_node:g}" if setting.slow_node else ""
        variables = {"PYTHONPATH": str(stand_in), **_light_variables(setting)}
        environment["targets"] = {"slurm": {"python": sys.executable, "prologue": prologue, "variables": variables}}
    else:
        target["namespace"] = namespace
        environment["targets"] = {"kubernetes": {"image": HOST_IMAGE, "traits": _pod_traits(setting)}}
    hub = site.setdefault("hub", {})
    connect = hub.pop("connect_url", None)
    lines = [
        f"import os; os.environ.update(OBERALP_SITE={str(directory / 'site.yaml')!r})",
        f"load_subconfig({str(ROOT / 'jupyterhub_config.py')!r})",
    ]
    if connect:
        lines.append(f"c.JupyterHub.hub_connect_url = {connect!r}.format(port=HUB_PORT)")
        lines.append("c.JupyterHub.hub_ip = '0.0.0.0'")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "site.yaml").write_text(yaml.safe_dump(site))
    options = {"profile": "bench", "target": target["name"]}
    return Contender("oberalp", target["kind"], "\n".join(lines), options, setting.poll_seconds)


def batchspawner(directory: Path, setting: Setting) -> Contender:
    config = f"""
import batchspawner
c.JupyterHub.spawner_class = "batchspawner.SlurmSpawner"
{_batchspawner_traits(directory, setting)}
"""
    return Contender("batchspawner", "slurm", config, {}, setting.poll_seconds)


def kubespawner(kubernetes: KubernetesCluster, setting: Setting, namespace: str) -> Contender:
    config = "c.JupyterHub.spawner_class = 'kubespawner.KubeSpawner'\n" + _kubespawner_traits(
        kubernetes, setting, namespace
    )
    return Contender("kubespawner", "kubernetes", config, {}, setting.poll_seconds)


def wrapspawner(
    directory: Path, setting: Setting, kubernetes: KubernetesCluster | None = None, namespace: str = ""
) -> Contender:
    """ProfilesSpawner over a stock spawner, with the dictionary that people pass to undo what it overwrites.

    It is not among our dependencies: `pip install --no-deps --target DIR wrapspawner`, and $OBERALP_WRAPSPAWNER=DIR.
    """
    kind = "slurm" if kubernetes is None else "kubernetes"
    where = os.environ.get(WRAPSPAWNER_PATH, "")
    missing = (
        "" if where and (Path(where) / "wrapspawner").exists() else f"set ${WRAPSPAWNER_PATH} to where it is installed"
    )
    if kubernetes is None:
        below = "batchspawner.SlurmSpawner"
        traits = "import batchspawner\n" + _batchspawner_traits(directory, setting)
        undo: dict[str, Any] = {}
    else:
        below = "kubespawner.KubeSpawner"
        traits = _kubespawner_traits(kubernetes, setting, namespace)
        cmd = _pod_traits(setting)["cmd"]
        undo = {"ip": "0.0.0.0", "port": 8888, "cmd": cmd, "environment": _pod_environment(setting), "env_keep": []}
        # kubespawner takes the option `profile` for its own, and refuses one that it does not know
        undo["profile_list"] = [{"display_name": "one", "slug": "one"}]
    config = f"""
import sys; sys.path.append({where!r})
c.JupyterHub.spawner_class = "wrapspawner.ProfilesSpawner"
{traits}
c.ProfilesSpawner.profiles = [("one", "one", {below!r}, {undo!r})]
c.Spawner.start_timeout, c.Spawner.http_timeout = {START_TIMEOUT}, 120
"""
    return Contender("wrapspawner", kind, config, {"profile": "one"}, setting.poll_seconds, missing)


def _light_variables(setting: Setting) -> dict[str, str]:
    return {"OBERALP_LIGHT_DELAY": f"{setting.slow_server:g}", "OBERALP_LIGHT_VERSION": jupyterhub_version}


def _stand_in(directory: Path) -> Path:
    """A directory for PYTHONPATH where `python -m jupyterhub.singleuser` is the light server."""
    package = directory / "stand-in" / "jupyterhub"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "singleuser.py").write_text(
        f"import runpy\nrunpy.run_path({str(LIGHT_SERVER)!r}, run_name='__main__')\n"
    )
    return package.parent


def _batchspawner_traits(directory: Path, setting: Setting) -> str:
    home = directory / "home"
    home.mkdir(parents=True, exist_ok=True)
    gres = f"gpu:gh200:{setting.gpus}" if setting.gpus else ""
    single_user = Path(sys.executable).with_name("batchspawner-singleuser")
    return f"""
c.SlurmSpawner.exec_prefix = ""  # the hub runs as root; ours is run likewise (run_as: hub)
c.SlurmSpawner.batchspawner_singleuser_cmd = {str(single_user)!r}
c.SlurmSpawner.cmd = [{str(LIGHT_SERVER)!r}]
c.SlurmSpawner.env_keep = ["PATH", "LANG", "SLURM_CONF"]
c.SlurmSpawner.environment = {_light_variables(setting)!r}
c.SlurmSpawner.req_homedir = {str(home)!r}
c.SlurmSpawner.req_gres = {gres!r}
c.SlurmSpawner.req_memory = "954M"
c.SlurmSpawner.req_nprocs = "1"
c.SlurmSpawner.req_runtime = "02:00:00"
c.SlurmSpawner.req_prologue = {f"sleep {setting.slow_node:g}" if setting.slow_node else ""!r}
c.SlurmSpawner.start_timeout, c.SlurmSpawner.http_timeout = {START_TIMEOUT}, 120
"""


def _pod_environment(setting: Setting) -> dict[str, str]:
    return {"HOME": "/home/session", "PATH": "/usr/local/bin:/usr/bin:/bin", **_light_variables(setting)}


def _pod_traits(setting: Setting) -> dict[str, Any]:
    volumes, mounts = host_volumes(str(ROOT), str(LIGHT_SERVER.parents[2]))
    return {
        "cmd": ["/usr/bin/env", sys.executable, str(LIGHT_SERVER)],
        "image_pull_policy": "Never",
        "volumes": [*volumes, {"name": "home", "emptyDir": {}}],
        "volume_mounts": [*mounts, {"name": "home", "mountPath": "/home/session"}],
        "working_dir": "/home/session",
        "environment": _pod_environment(setting),
        "cpu_guarantee": setting.pod_cpus,
        "mem_guarantee": "32M",
    }


def _kubespawner_traits(kubernetes: KubernetesCluster, setting: Setting, namespace: str) -> str:
    traits = {
        **_pod_traits(setting),
        "image": HOST_IMAGE,
        "namespace": namespace,
        "cpu_limit": 1.0,
        "mem_limit": "1G",
        "start_timeout": START_TIMEOUT,
        "http_timeout": 120,
    }
    lines = [f"c.KubeSpawner.{name} = {value!r}" for name, value in traits.items()]
    return "\n".join(
        [
            *lines,
            "c.JupyterHub.hub_ip = '0.0.0.0'",
            f"c.JupyterHub.hub_connect_url = 'http://{kubernetes.node_ip}:%d' % HUB_PORT",
        ]
    )


_SCOPES = ["admin:users", "tokens", "admin:servers", "admin:server_state", "access:servers", "read:hub", "read:metrics"]
_FRAME = """
c = get_config()
from hybridspawner import database  # for all contenders alike: else every hub mostly waits for SQLite
database.write_ahead()
HUB_PORT = {hub_port}
c.JupyterHub.hub_ip = "127.0.0.1"
{contender}
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = HUB_PORT
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.should_start = False  # it outlives a hub that is killed, as at a site
c.ConfigurableHTTPProxy.auth_token = {token!r}
c.JupyterHub.db_url = {db!r}
c.JupyterHub.cookie_secret_file = {cookie!r}
c.JupyterHub.cleanup_servers = False
c.JupyterHub.init_spawners_timeout = 1
c.JupyterHub.allow_named_servers = True
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.active_server_limit = 0
{polling}
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.log_level = "INFO"
c.JupyterHub.services = [{{"name": "bench", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [{{"name": "bench", "services": ["bench"], "scopes": {scopes!r}}}]
"""


class ContenderHub:
    """A running hub of one contender. Blocking, like tests.hub.process.Hub; all it writes is below `directory`."""

    def __init__(self, contender: Contender, directory: Path, environment: dict[str, str] | None = None) -> None:
        self.contender, self.directory = contender, directory
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = os.urandom(16).hex()
        self._process: subprocess.Popen[bytes] | None = None
        self._proxy: subprocess.Popen[bytes] | None = None
        self._config = directory / "jupyterhub_config.py"
        self._config.write_text(
            _FRAME.format(
                contender=contender.config,
                polling=f"c.Spawner.poll_interval = {contender.poll_seconds}",
                port=self.port,
                hub_port=self.port + 1,
                api_port=self.port + 2,
                db=f"sqlite:///{directory / 'jupyterhub.sqlite'}",
                cookie=str(directory / "cookie_secret"),
                token=self.token,
                scopes=_SCOPES,
            )
        )
        self._environment = {
            **os.environ,
            "OBERALP_STATE": str(directory / "state"),
            "OBERALP_PORT": str(self.port),
            **(environment or {}),
        }

    @property
    def log(self) -> str:
        return (self.directory / "hub.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, seconds: float = 60) -> ContenderHub:
        if self._proxy is None:
            self._proxy = self._run("proxy.log", [*node_proxy.command(ROOT), *self._proxy_arguments()])
        self._process = self._run("hub.log", [sys.executable, "-m", "jupyterhub", "-f", str(self._config)])
        if not wait_for(self._answers, seconds, 0.1):
            raise AssertionError(f"the hub of {self.contender.name} does not answer:\n{self.log[-4000:]}")
        return self

    def _proxy_arguments(self) -> list[str]:
        hub = f"http://127.0.0.1:{self.port + 1}"
        return [
            *("--ip", "127.0.0.1", "--port", str(self.port), "--api-ip", "127.0.0.1", "--api-port", str(self.port + 2)),
            *("--default-target", hub, "--error-target", f"{hub}/hub/error", "--log-level", "warn"),
        ]

    def _run(self, log: str, argv: list[str]) -> subprocess.Popen[bytes]:
        with (self.directory / log).open("ab") as output:
            return subprocess.Popen(
                argv,
                cwd=self.directory,
                env={**self._environment, "CONFIGPROXY_AUTH_TOKEN": self.token},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"the hub of {self.contender.name} ended:\n{self.log[-4000:]}")
        try:
            return httpx.get(f"{self.url}/hub/api/", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """SIGKILL for the hub alone: its proxy, its commands under way and its sessions stay."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)
        self._process = None

    def close(self) -> None:
        """End the hub and its proxy; SIGKILL if SIGTERM is not enough (a stock hub with queued starts hangs)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(30)
            self._process = None
        if self._proxy is not None:
            self._proxy.kill()
            self._proxy.wait(10)
            self._proxy = None

    def __enter__(self) -> ContenderHub:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *error: object) -> None:
        self.close()
