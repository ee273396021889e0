"""One notebook in a process of its own: a copy in an empty folder, a home of its own, its cores, no network for models.

What it leaves running is found by a mark in the environment, also what has left its parent's tree; it is ended, and it
is a finding. Memory is the sum over all its processes (shared pages counted once, where the kernel tells).
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

import psutil

MARK = "OBERALP_NOTEBOOK_RUN"
CANARY = "OBERALP_CANARY_TOKEN"  # a secret that a notebook has no reason to show
_TAKEN = ("JUPYTERHUB_", "JPY_", "SLURM_", "PMI", "MPLBACKEND", "KUBECONFIG")  # a notebook at night has none of these
OUTPUT = "executed.ipynb"


def engine() -> list[str]:
    """papermill's option for the engine that goes on after a failure, where it is installed."""
    names = {point.name for point in entry_points(group="papermill.engine")}
    return ["--engine", "resumable"] if "resumable" in names else []


@dataclass
class Run:
    """A run under way. `poll` is to be called often: each call measures."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]
    mark: str
    canary: str
    limit: float
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    peak_bytes: int = 0
    timed_out: bool = False
    left: list[str] = field(default_factory=list)
    _known: dict[tuple[int, float], bool] = field(default_factory=dict)

    @property
    def executed(self) -> Path:
        return self.folder / OUTPUT

    @property
    def log(self) -> str:
        return (self.folder / "papermill.log").read_text(encoding="utf-8", errors="replace")

    def poll(self) -> bool:
        """Whether it has ended."""
        ended = self.process.poll() is not None
        processes = self._processes()
        self.seconds = time.monotonic() - self.began
        self.peak_bytes = max(self.peak_bytes, sum(map(_memory, processes)))
        if ended:
            self.left = [left for process in self._still_there(processes) if (left := _name(process))]
            self.end()
        elif self.seconds > self.limit:
            self.timed_out = True
            self.end()
            ended = True
        return ended

    def end(self) -> None:
        """Ends whatever of it still runs."""
        processes = self._processes()
        for process in processes:
            _signal(process, "terminate")
        for process in psutil.wait_procs(processes, timeout=5)[1]:
            _signal(process, "kill")
        self.process.wait()

    def _still_there(self, processes: Sequence[psutil.Process]) -> list[psutil.Process]:
        """Those that do not end by themselves within a moment: a kernel's helpers take one."""
        return psutil.wait_procs(processes, timeout=5)[1] if processes else []

    def _processes(self) -> list[psutil.Process]:
        """All that carry the mark. A process's environment is asked for once: it does not change."""
        ours = []
        for process in psutil.process_iter(["create_time", "status"]):
            key = (process.pid, process.info["create_time"])
            if key not in self._known and process.info["status"] != psutil.STATUS_ZOMBIE:
                try:
                    environment = process.environ()
                except psutil.Error:
                    continue
                if environment:  # empty between fork and exec: asked again
                    self._known[key] = environment.get(MARK) == self.mark
            if self._known.get(key) and process.info["status"] != psutil.STATUS_ZOMBIE:
                ours.append(process)
        return ours


def start(notebook: Path, folder: Path, profile: str, cores: Collection[int], limit: float) -> Run:
    """Starts it in `folder`, which is made; after `limit` seconds it is ended."""
    home = folder / "home"
    home.mkdir(parents=True)
    shutil.copy(notebook, folder / notebook.name)
    mark, canary = secrets.token_hex(8), f"canary-{secrets.token_hex(16)}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_TAKEN)}
    environment |= {
        "HOME": str(home),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),  # the converted model
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": "",
        MARK: mark,
        CANARY: canary,
    }
    command = [sys.executable, "-m", "papermill", notebook.name, OUTPUT, "--no-progress-bar", *engine()]
    command += ["--start-timeout", "180", "-p", "PROFILE", profile]
    with (folder / "papermill.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    return Run(notebook.stem, folder, process, mark, canary, limit)


def prepare_model() -> None:
    """The bundled model is converted once for all, not in the first run's time."""
    subprocess.run(
        [sys.executable, "-c", "from ipytune.models import SMOLLM2, resolve; resolve(SMOLLM2)"],
        check=True,
        capture_output=True,
    )


def _memory(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except (psutil.Error, AttributeError):
        try:
            return process.memory_info().rss
        except psutil.Error:
            return 0


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:4])[:120]
    except psutil.Error:
        return ""


def _signal(process: psutil.Process, how: str) -> None:
    try:
        getattr(process, how)()
    except psutil.Error:
        pass
