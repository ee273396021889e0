"""SlurmCluster: up, down, status, and the accidents that tests want to cause."""

import contextlib
import fcntl
import os
import pwd
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.clusters.slurm import hosts
from tests.clusters.slurm.config import CLUSTER_NAME
from tests.clusters.slurm.daemons import ClusterError, Daemons, executable, missing_packages
from tests.clusters.slurm.processes import Survey, kill, terminate, wait_for
from tests.clusters.slurm.spec import STATE_VARIABLE, Layout, Ports, Record, SlurmSpec

# Below the range from which the kernel takes ports for outgoing connections, so that these stay free while it starts.
PORT_RANGE = range(20_000, 32_000)
_SOCKET_PATH_LIMIT = 107  # bytes; sockaddr_un.sun_path


class SlurmCluster:
    """One private Slurm below a state directory. Blocking; needs root.

    `state` is the directory (default: $OBERALP_SLURM_STATE, else below the system's temporary directory); it must be
    one that every user can enter. `up()` and `down()` may be called at any time, by any process, again and again.
    """

    def __init__(self, spec: SlurmSpec | None = None, state: Path | str | None = None) -> None:
        self.layout = Layout(Path(state).absolute()) if state else Layout.default()
        self._wanted = spec

    # -- life ----------------------------------------------------------------------------------------------------

    def up(self) -> "SlurmCluster":
        """Start, or leave running what is healthy and as asked; returns when every node is idle.

        A cluster that is damaged or of another size goes first, its jobs with it. Raises ClusterError, leaving nothing.
        """
        wanted = self._wanted or SlurmSpec()
        self._check_possible(wanted)
        self._claim_directory()
        with self._locked():
            record = self.record
            if record and record.spec == wanted and self._healthy():
                return self
            self._wipe()
            record = Record(wanted, _free_ports(wanted.nodes))
            self.layout.record.write_text(record.to_json())
            try:
                self._start(Daemons(self.layout, record))
            except BaseException:
                self._remove()
                raise
        return self

    def down(self) -> None:
        """End every process, job and name of the cluster and remove its directory; nothing to do is no error."""
        if not self.layout.root.exists():
            self._wipe()  # its directory was deleted under it; its processes may be there yet
            return
        self._claim_directory()
        with self._locked():
            self._remove()

    def __enter__(self) -> "SlurmCluster":
        return self.up()

    def __exit__(self, *error: object) -> None:
        self.down()

    # -- questions -----------------------------------------------------------------------------------------------

    @property
    def record(self) -> Record | None:
        """What `up` wrote down, or None when there is no cluster here."""
        try:
            return Record.from_json(self.layout.record.read_text())
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    @property
    def spec(self) -> SlurmSpec:
        return self._existing().spec

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead Slurm's commands, the hub and the tests to this cluster."""
        record = self._existing()
        found = {
            "SLURM_CONF": str(self.layout.conf),
            "OBERALP_SLURM": "1",
            STATE_VARIABLE: str(self.layout.root),
        }
        if record.spec.rest:
            found["SLURM_REST_URL"] = f"http://127.0.0.1:{record.ports.rest}"
        return found

    @property
    def running(self) -> bool:
        """Whether all daemons run, the controller answers and no node is down or drained."""
        return self.record is not None and self._healthy()

    def daemons(self) -> dict[str, int | None]:
        """Every daemon that should run, with its pid, or None when it does not."""
        daemons = self._daemons()
        return {name: (process.pid if (process := daemons.process(name)) else None) for name in daemons.names()}

    def node_states(self) -> dict[str, str]:
        """Each node's state in sinfo's long words: `idle`, `mixed`, `down*`, `drained`, ..."""
        lines = self.run("sinfo", "--noheader", "--Node", "--partition=normal", "--format=%N %T").stdout.splitlines()
        return dict(line.split() for line in lines)

    def job_state(self, job: int | str) -> str:
        """The state of a job, as squeue writes it (`PENDING`, `RUNNING`, `COMPLETED`, ...)."""
        done = self.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")
        return done.stdout.strip()

    def run(
        self, *command: str, check: bool = True, user: str | None = None, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands, or any other, against this cluster, as root or as `user`.

        Raises ClusterError with what it said when it fails and `check` is true.
        """
        account = pwd.getpwnam(user) if user else None
        done = subprocess.run(
            [executable(command[0]), *command[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, **self.env},
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=os.getgrouplist(account.pw_name, account.pw_gid) if account else None,
            timeout=timeout,
        )
        if check and done.returncode:
            raise ClusterError(f"{' '.join(command)} failed ({done.returncode}): {done.stderr or done.stdout}")
        return done

    def token(self, user: str = "root", lifespan: int = 3600) -> str:
        """A token for the REST API in the name of `user`, valid for `lifespan` seconds.

        It goes into the header X-SLURM-USER-TOKEN, the name into X-SLURM-USER-NAME.
        """
        printed = self.run("scontrol", "token", f"username={user}", f"lifespan={lifespan}").stdout
        return printed.strip().removeprefix("SLURM_JWT=")

    # -- accidents -----------------------------------------------------------------------------------------------

    def stop_controller(self, kill_it: bool = False) -> None:
        """End slurmctld, so that every command fails while jobs go on; `kill_it`: without letting it save."""
        if process := self._daemons().process("slurmctld"):
            if kill_it:
                kill([process])
            else:
                terminate(process)

    def start_controller(self) -> None:
        """Start slurmctld again and wait until it answers and has heard of every node that runs."""
        daemons = self._daemons()
        if not daemons.process("slurmctld"):
            daemons.slurmctld()
        self._await_nodes([node for node in self.spec.node_names if daemons.process(f"slurmd-{node}")])

    def drain(self, node: str, reason: str = "test") -> None:
        """Let `node` start nothing more; its jobs go on. `resume` undoes it."""
        self.run("scontrol", "update", f"nodename={node}", "state=drain", f"reason={reason}")

    def resume(self, node: str) -> None:
        self.run("scontrol", "update", f"nodename={node}", "state=resume")

    def fail_node(self, node: str) -> None:
        """The node dies: its slurmd and all of its jobs' processes end at once, Slurm finds it down (NODE_FAIL)."""
        daemon = self._daemons().process(f"slurmd-{node}")
        kill([*([daemon] if daemon else []), *Survey.of(self.layout.root, self.layout.conf).steps_on(node)])
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=failed by a test")

    def start_node(self, node: str) -> None:
        """Bring back a node that `fail_node` ended; returns when it is idle."""
        daemons = self._daemons()
        if not daemons.process(f"slurmd-{node}"):
            daemons.slurmd(node)
        self.run("scontrol", "update", f"nodename={node}", "state=resume")
        self._await_nodes([node])

    # -- inside --------------------------------------------------------------------------------------------------

    def _existing(self) -> Record:
        record = self.record
        if not record:
            raise ClusterError(
                f"no Slurm test cluster in {self.layout.root}; start one: python -m tests.clusters.slurm up"
            )
        return record

    def _daemons(self) -> Daemons:
        return Daemons(self.layout, self._existing())

    def _check_possible(self, spec: SlurmSpec) -> None:
        if os.geteuid():
            raise ClusterError("a Slurm test cluster needs root: its daemons start jobs as other users")
        if missing := missing_packages(spec.dbd, spec.rest):
            raise ClusterError(f"not installed: {', '.join(missing)}; on Debian: apt-get install {' '.join(missing)}")
        if len(os.fsencode(self.layout.munge_socket)) > _SOCKET_PATH_LIMIT:
            raise ClusterError(f"{self.layout.root} is too long for a socket's path; set {STATE_VARIABLE} to a shorter")
        for directory in self.layout.root.parents:
            if directory.exists() and not directory.stat().st_mode & 0o001:
                raise ClusterError(
                    f"{directory} is closed to other users, but jobs and munge run as such; "
                    f"set {STATE_VARIABLE} to a directory that all can enter"
                )

    def _claim_directory(self) -> None:
        """Make the state directory, or make sure that it is one of ours: it will be removed as a whole."""
        root = self.layout.root
        if root.exists() and not self.layout.record.exists() and any(root.iterdir()):
            raise ClusterError(f"{root} is not the state of a Slurm test cluster; set {STATE_VARIABLE} to another")
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time for a state directory."""
        while True:
            self.layout.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.layout.root, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _same_file(descriptor, self.layout.root):
                    yield
                    return
            finally:
                os.close(descriptor)
            # A `down` that we waited for has removed the directory whose lock we now hold: take the new one's.

    def _start(self, daemons: Daemons) -> None:
        spec = daemons.record.spec
        daemons.write_files()
        hosts.add_names(str(self.layout.root), spec.node_names)
        daemons.munged()
        if spec.dbd:
            daemons.install_database()
            daemons.mariadbd()
            daemons.slurmdbd()
            self.run("sacctmgr", "--immediate", "--quiet", "add", "cluster", CLUSTER_NAME)
        daemons.slurmctld()
        for node in spec.node_names:
            daemons.slurmd(node)
        if spec.rest:
            daemons.slurmrestd()
        self._await_idle(daemons)

    def _await_idle(self, daemons: Daemons) -> None:
        def idle() -> bool:
            states = set(self.node_states().values())
            if drained := [state for state in states if "drain" in state]:
                raise ClusterError(f"nodes are {drained}: {self.run('sinfo', '--list-reasons').stdout}")
            return states == {"idle"}

        if not wait_for(idle, 30 + len(daemons.record.spec.node_names), 0.1):
            raise ClusterError(f"nodes did not become idle: {self.node_states()}; see {self.layout.logs}")

    def _await_nodes(self, nodes: list[str]) -> None:
        def answering() -> bool:
            states = self.node_states()
            return all(_answers(states.get(node, "unknown")) for node in nodes)

        if not wait_for(answering, 60, 0.2):
            raise ClusterError(f"nodes do not answer: {self.node_states()}; see {self.layout.logs}")

    def _healthy(self) -> bool:
        daemons = self._daemons()
        if not all(daemons.process(name) for name in daemons.names()):
            return False
        try:
            states = self.node_states()
        except (ClusterError, subprocess.TimeoutExpired):
            return False
        nodes = daemons.record.spec.node_names
        return all(_answers(state := states.get(node, "unknown")) and "drain" not in state for node in nodes)

    def _remove(self) -> None:
        self._wipe()
        shutil.rmtree(self.layout.root)

    def _wipe(self) -> None:
        """End every process of the cluster and empty its directory, which stays (it carries the lock)."""
        deadline = time.monotonic() + 30
        while processes := Survey.of(self.layout.root, self.layout.conf).processes():
            if time.monotonic() > deadline:
                raise ClusterError(f"processes {[p.pid for p in processes]} of the cluster do not end")
            kill(processes)
        hosts.remove_names(str(self.layout.root))
        if self.layout.root.exists():
            for entry in self.layout.root.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _answers(state: str) -> bool:
    """Whether a node in this state (sinfo's word; a `*` marks silence) takes part."""
    return not state.endswith("*") and not any(word in state for word in ("down", "fail", "unknown"))


def _free_ports(nodes: int) -> Ports:
    """Ports in a row that nobody listens on now; taken at random, so that two starting clusters hardly meet."""
    count = 4 + nodes
    for _ in range(200):
        base = random.randrange(PORT_RANGE.start, PORT_RANGE.stop - count)
        if _all_free(range(base, base + count)):
            return Ports.from_base(base)
    raise ClusterError(f"no {count} free TCP ports in a row between {PORT_RANGE.start} and {PORT_RANGE.stop}")


def _all_free(ports: Sequence[int]) -> bool:
    with contextlib.ExitStack() as stack:
        for port in ports:
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                return False
    return True
