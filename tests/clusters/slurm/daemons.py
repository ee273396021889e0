"""How each daemon of a test cluster is prepared and started, and what shows that it is ready. No order, no policy."""

import os
import pwd
import secrets
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.clusters.slurm import config
from tests.clusters.slurm.processes import Process, start, wait_for
from tests.clusters.slurm.spec import Layout, Record

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sinfo": "slurm-client",
    "munged": "munge",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "slurmrestd": "slurmrestd",
}
_PATH = os.pathsep.join(["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"])


class ClusterError(RuntimeError):
    """The cluster cannot be had as asked; the message says why, and what to do."""


def executable(name: str) -> str:
    """The path of a program, also where the user's PATH lacks /usr/sbin."""
    found = shutil.which(name, path=_PATH) or shutil.which(name)
    if not found:
        raise ClusterError(f"{name} is not installed; on Debian: apt-get install {PACKAGES.get(name, name)}")
    return found


def missing_packages(dbd: bool, rest: bool) -> list[str]:
    """Debian packages that a cluster with these options needs and that are not installed."""
    optional = {"slurmdbd": dbd, "mariadbd": dbd, "slurmrestd": rest}
    wanted = [name for name in PACKAGES if optional.get(name, True)]
    missing = [PACKAGES[name] for name in wanted if not shutil.which(name, path=_PATH)]
    plugins = ("lib*/slurm*/auth_jwt.so", "lib/*/slurm*/auth_jwt.so")
    if rest and not any(found for pattern in plugins for found in Path("/usr").glob(pattern)):
        missing.append("slurm-wlm-jwt-plugin")
    return missing


class Daemons:
    """Starts the daemons of one cluster. Each method returns when its daemon answers, or raises ClusterError."""

    def __init__(self, layout: Layout, record: Record) -> None:
        self.layout = layout
        self.record = record
        # Not this process's environment: a job inherits much of its slurmd's.
        self.environment = {"PATH": _PATH, "LANG": "C.UTF-8", "SLURM_CONF": str(layout.conf)}

    # -- files ---------------------------------------------------------------------------------------------------

    def write_files(self) -> None:
        """Directories, keys and configuration. The database's password is in one file of mode 600 only."""
        layout, spec, ports = self.layout, self.record.spec, self.record.ports
        for directory in (layout.conf.parent, layout.devices, layout.logs, layout.pids, layout.controller_state):
            directory.mkdir(parents=True, exist_ok=True)
        for gpu in range(spec.gpus):
            self._device(layout.devices / f"gpu{gpu}")
        layout.conf.write_text(config.slurm_conf(spec, ports, layout, socket.gethostname().split(".")[0]))
        layout.gres_conf.write_text(config.gres_conf(spec, layout))
        self._private_directory(layout.munge, "munge", mode=0o755)  # every user talks to munge through it
        _write_private(layout.munge / "key", secrets.token_bytes(128), owner="munge")
        if spec.rest:
            _write_private(layout.jwt_key, secrets.token_bytes(32))
        if spec.dbd:
            password = secrets.token_hex(16)
            _write_private(layout.dbd_conf, config.slurmdbd_conf(spec, ports, layout, password).encode())
            self._private_directory(layout.database, "mysql", mode=0o700)
            (layout.database / "my.cnf").write_text(config.database_conf(ports, layout))
            _write_private(layout.database / "init.sql", config.database_init_sql(password).encode(), owner="mysql")

    def _device(self, path: Path) -> None:
        if not path.exists():
            # The null device under another name: Slurm checks that a GPU's file is a device and reads its number.
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))

    def _private_directory(self, path: Path, owner: str, mode: int) -> None:
        path.mkdir(exist_ok=True)
        account = pwd.getpwnam(owner)
        os.chown(path, account.pw_uid, account.pw_gid)
        path.chmod(mode)

    # -- daemons -------------------------------------------------------------------------------------------------

    def munged(self) -> None:
        munge = self.layout.munge
        files = [f"--{what}-file={munge}/{what}" for what in ("key", "pid", "log", "seed")]
        command = [executable("munged"), "--foreground", f"--socket={self.layout.munge_socket}", *files]
        process = self._start("munged", command, user="munge")
        self._await("munged", process, self.layout.munge_socket.is_socket, 10, munge / "log")

    def install_database(self) -> None:
        """Write an empty database, which takes some seconds."""
        command = [
            executable("mariadb-install-db"),
            f"--defaults-file={self.layout.database}/my.cnf",
            "--user=mysql",
            "--auth-root-authentication-method=socket",
            "--skip-test-db",
            "--skip-name-resolve",
        ]
        log = self.layout.logs / "mariadb-install-db.log"
        with log.open("wb") as output:
            done = subprocess.run(command, stdout=output, stderr=output, env=self.environment, timeout=120)
        if done.returncode:
            raise ClusterError(f"the accounting database could not be made:\n{_tail(log)}")

    def mariadbd(self) -> None:
        options = f"--defaults-file={self.layout.database}/my.cnf"
        process = self._start("mariadbd", [executable("mariadbd"), options])
        self._await("mariadbd", process, lambda: _listens(self.record.ports.database), 30, self.layout.database / "log")

    def slurmdbd(self) -> None:
        process = self._start("slurmdbd", [executable("slurmdbd"), "-D"])
        log = self.layout.logs / "slurmdbd.log"
        self._await("slurmdbd", process, lambda: _listens(self.record.ports.accounting), 30, log)

    def slurmctld(self) -> None:
        process = self._start("slurmctld", [executable("slurmctld"), "-D", "-f", str(self.layout.conf)])
        self._await("slurmctld", process, self._controller_answers, 30, self.layout.logs / "slurmctld.log")

    def slurmd(self, node: str) -> None:
        """Start the daemon of `node`; when it has registered is for `sinfo` to say."""
        self._start(f"slurmd-{node}", [executable("slurmd"), "-D", "-N", node, "-f", str(self.layout.conf)])

    def slurmrestd(self) -> None:
        # It refuses to run as root or as SlurmUser; SLURM_JWT=daemon makes it take the caller's token only.
        command = [executable("slurmrestd"), "-a", "rest_auth/jwt", "-s", "openapi/v0.0.38,openapi/dbv0.0.38"]
        command += ["-f", str(self.layout.conf), f"127.0.0.1:{self.record.ports.rest}"]
        process = self._start("slurmrestd", command, user="slurm", extra={"SLURM_JWT": "daemon"})
        log = self.layout.logs / "slurmrestd.out"
        self._await("slurmrestd", process, lambda: _listens(self.record.ports.rest), 15, log)

    def pid_file(self, name: str) -> Path:
        return self.layout.pids / f"{name}.pid"

    def process(self, name: str) -> Process | None:
        """The running daemon `name` (`slurmctld`, `slurmd-nid000001`, ...), or None."""
        try:
            pid, started = self.pid_file(name).read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        process = Process(int(pid), int(started))
        return process if process.alive() else None

    def names(self) -> list[str]:
        """Every daemon that the cluster consists of."""
        spec = self.record.spec
        names = ["munged"]
        names += ["mariadbd", "slurmdbd"] if spec.dbd else []
        names += ["slurmctld", *(f"slurmd-{node}" for node in spec.node_names)]
        return names + (["slurmrestd"] if spec.rest else [])

    def _start(
        self, name: str, command: list[str], user: str | None = None, extra: dict[str, str] | None = None
    ) -> Process:
        process = start(command, self.layout.logs / f"{name}.out", {**self.environment, **(extra or {})}, user)
        self.pid_file(name).write_text(f"{process.pid} {process.started}\n")
        return process

    def _await(self, name: str, process: Process, ready: Callable[[], bool], seconds: float, log: Path) -> None:
        wait_for(lambda: ready() or not process.alive(), seconds)
        if not process.alive():
            raise ClusterError(f"{name} ended at once:\n{_tail(log, self.layout.logs / f'{name}.out')}")
        if not ready():
            raise ClusterError(f"{name} does not answer after {seconds:.0f} s:\n{_tail(log)}")

    def _controller_answers(self) -> bool:
        answer = subprocess.run(
            [executable("scontrol"), "ping"], capture_output=True, text=True, env=self.environment, timeout=30
        )
        return answer.returncode == 0 and "is UP" in answer.stdout


def _write_private(path: Path, content: bytes, owner: str | None = None) -> None:
    """Write a secret: never, not even for a moment, readable by others."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    if owner:
        account = pwd.getpwnam(owner)
        os.chown(path, account.pw_uid, account.pw_gid)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _tail(*logs: Path, lines: int = 12) -> str:
    """The last lines of the first log that has any."""
    for log in logs:
        if log.exists() and (text := log.read_text(errors="replace").strip()):
            return "\n".join([f"{log}:", *text.splitlines()[-lines:]])
    return "(its log is empty)"
