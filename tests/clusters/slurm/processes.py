"""Daemons as processes: start one detached, know it again for certain, end it, find what an unclean end left behind.

A process is known by its pid and its start time, so that a number given anew to somebody else is never killed.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

DAEMONS = frozenset({"slurmctld", "slurmd", "slurmdbd", "slurmrestd", "slurmstepd", "munged", "mariadbd"})


@dataclass(frozen=True)
class Process:
    """One process of this machine; `started` is the kernel's start time of it, in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process `pid` as it is now, or None when there is none or it is a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def signal(self, number: int) -> None:
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # it ended in between, which is what is wanted


def start(
    command: list[str], log: Path, environment: Mapping[str, str], user: str | None = None, directory: Path = Path("/")
) -> Process:
    """Start a daemon in a session of its own, its output appended to `log`; it outlives this process.

    The shell in between ends at once: the daemon becomes init's child, and a test process gets no zombies.
    """
    with log.open("ab") as output:
        shell = subprocess.run(
            ["/bin/sh", "-c", '"$@" </dev/null >&2 & echo $!', "sh", *command],
            stdout=subprocess.PIPE,
            stderr=output,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            check=True,
        )
    pid = int(shell.stdout)
    return Process.of(pid) or Process(pid, -1)  # -1: it has ended already


def wait_for(condition: Callable[[], bool], seconds: float, interval: float = 0.05) -> bool:
    """Poll until `condition` holds; False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def terminate(process: Process, seconds: float = 10) -> None:
    """SIGTERM, then SIGKILL when `seconds` were not enough; returns when the process is gone."""
    process.signal(signal.SIGTERM)
    if not wait_for(lambda: not process.alive(), seconds):
        kill([process])


def kill(processes: Iterable[Process], seconds: float = 10) -> None:
    """SIGKILL; returns when all are gone. Raises TimeoutError naming those that the kernel would not end."""
    chosen = list(processes)
    for process in chosen:
        process.signal(signal.SIGKILL)
    if not wait_for(lambda: not any(p.alive() for p in chosen), seconds):
        left = [p.pid for p in chosen if p.alive()]
        raise TimeoutError(f"processes {left} outlive SIGKILL by {seconds} s (waiting for a device or a file system?)")


@dataclass(frozen=True)
class Survey:
    """What of a cluster is in /proc now: pids of its daemons, job steps and job processes, and who is whose child.

    A job's process is found by its environment, or as a descendant of its step whatever it did to that. Never the
    caller or its ancestors: a shell that exported SLURM_CONF is no part of the cluster, nor is a test run.
    """

    kinds: Mapping[int, str]
    children: Mapping[int, list[int]]

    @classmethod
    def of(cls, root: Path, conf: Path) -> "Survey":
        """Look for the cluster whose state is below `root` and whose slurm.conf is `conf`."""
        spared = _ancestors(os.getpid())
        kinds: dict[int, str] = {}
        children: dict[int, list[int]] = {}
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            if pid in spared:
                continue
            try:
                children.setdefault(_parent(pid), []).append(pid)
                kind = _kind(pid, root, conf)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # ended meanwhile, or hidden from us: not ours
            if kind:
                kinds[pid] = kind
        return cls(kinds, children)

    def below(self, pid: int) -> list[int]:
        """All descendants of `pid`."""
        return [pid for child in self.children.get(pid, []) for pid in (child, *self.below(child))]

    def processes(self) -> list[Process]:
        """Everything of the cluster; daemons and steps before what they would start again or report on."""
        daemons = [pid for pid, kind in self.kinds.items() if kind == "daemon"]
        steps = [pid for pid, kind in self.kinds.items() if kind == "step"]
        jobs = [pid for pid, kind in self.kinds.items() if kind == "job"]
        return _processes([*daemons, *steps, *(pid for step in steps for pid in self.below(step)), *jobs])

    def steps_on(self, node: str) -> list[Process]:
        """The job steps of one node and what they run, steps first."""
        mark = f"SLURMD_NODENAME={node}".encode()
        found = []
        for step in (pid for pid, kind in self.kinds.items() if kind == "step"):
            below = self.below(step)
            if any(mark in _environment(pid) for pid in below):
                found += [step, *below]
        return _processes(found)


def _processes(pids: Iterable[int]) -> list[Process]:
    return [process for pid in dict.fromkeys(pids) if (process := Process.of(pid))]


def _environment(pid: int) -> list[bytes]:
    """The environment that `pid` was started with; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _kind(pid: int, root: Path, conf: Path) -> str | None:
    """`daemon`, `step` or `job` when process `pid` is the cluster's, else None."""
    home = Path(f"/proc/{pid}")
    environment = _environment(pid)
    try:
        # Debian calls the file behind /usr/sbin/slurmd `slurmd-wlm`.
        name = (home / "exe").readlink().name.removesuffix(" (deleted)").removesuffix("-wlm")
    except OSError:
        return None  # a kernel thread
    ours = f"SLURM_CONF={conf}".encode() in environment
    if name in DAEMONS:
        if ours or f"{root}/".encode() in (home / "cmdline").read_bytes():
            return "step" if name == "slurmstepd" else "daemon"
        return None
    # SLURMD_NODENAME exists only inside jobs: not in the shell that submitted one.
    in_job = any(entry.startswith(b"SLURMD_NODENAME=") for entry in environment)
    return "job" if ours and in_job else None


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _ancestors(pid: int) -> set[int]:
    found = set()
    while pid > 0:
        found.add(pid)
        pid = _parent(pid)
    return found
