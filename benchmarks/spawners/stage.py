"""Where a benchmark plays: a directory, clusters that are there meanwhile, and one contender's hub after another."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.clusters.kubernetes import KubernetesCluster
from tests.clusters.slurm import SlurmCluster
from tests.clusters.slurm.spec import SlurmSpec

from . import contenders
from .client import HubClient
from .clusters import cancel_all, jobs, session_pods
from .contenders import Contender, ContenderHub, Setting
from .report import say
from .slowdown import SlowCommands


def add_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", choices=["slurm", "kubernetes", "both"], default="both", help="default: both")


@dataclass
class Stage:
    """`slurm` and `kubernetes` are None where the benchmark does not want them or the machine lacks them."""

    directory: Path
    only: list[str]
    slurm: SlurmCluster | None = None
    slow: SlowCommands | None = None
    kubernetes: KubernetesCluster | None = None
    namespace: str = ""

    def contenders(self, setting: Setting | None = None) -> list[Contender]:
        """Ours and the stock ones, on every target of this stage."""
        setting = setting or Setting()
        found = []
        if self.slurm is not None:
            place = self.directory / "slurm"
            found.append(contenders.ours(place / "oberalp", setting))
            found.append(contenders.batchspawner(place / "batchspawner", setting))
        if self.kubernetes is not None:
            place = self.directory / "kubernetes"
            found.append(contenders.ours(place / "oberalp", setting, self.kubernetes, self.namespace))
            found.append(contenders.kubespawner(self.kubernetes, setting, self.namespace))
            found.append(contenders.wrapspawner(place / "wrapspawner", setting, self.kubernetes, self.namespace))
        return [c for c in found if not self.only or c.name in self.only]

    @property
    def environment(self) -> dict[str, str]:
        """What leads a hub to the clusters of this stage."""
        found: dict[str, str] = {}
        if self.slurm is not None and self.slow is not None:
            found |= {**self.slurm.env, "PATH": f"{self.slow.path}{os.pathsep}{os.environ['PATH']}"}
        if self.kubernetes is not None:
            found["KUBECONFIG"] = str(self.kubernetes.kubeconfig)
        return found

    @asynccontextmanager
    async def hub(self, contender: Contender, label: str = "") -> AsyncIterator[tuple[ContenderHub, HubClient]]:
        """A fresh hub of `contender` and a client of it. Ends with its jobs and pods gone, by force if need be."""
        directory = self.directory / "hubs" / f"{contender.kind}-{contender.name}{label}"
        hub = ContenderHub(contender, directory, self.environment)
        say(f"{contender.name} on {contender.kind}{label}")
        with hub:
            async with HubClient(hub) as client:
                try:
                    yield hub, client
                finally:
                    self.clear(contender.kind)

    def left(self, kind: str) -> int:
        """Jobs or pods of sessions that exist now."""
        if kind == "slurm":
            assert self.slurm is not None
            return len(jobs(self.slurm))
        assert self.kubernetes is not None
        return len(session_pods(self.kubernetes, self.namespace))

    def clear(self, kind: str) -> None:
        """End all jobs or pods of sessions, whoever forgot them."""
        if kind == "slurm" and self.slurm is not None:
            cancel_all(self.slurm)
        elif kind == "kubernetes" and self.kubernetes is not None:
            for name in session_pods(self.kubernetes, self.namespace):
                with contextlib.suppress(Exception):
                    self.kubernetes.delete_pod(name, self.namespace)


@contextmanager
def stage(target: str, only: list[str], nodes: int = 4, gpus: int = 4, accounting: bool = False) -> Iterator[Stage]:
    """A private Slurm (its state below the directory of this run), and a namespace in the cluster of $KUBECONFIG."""
    with contextlib.ExitStack() as stack:
        # short: Slurm's sockets lie below it, and every user must be able to enter it
        directory = Path(tempfile.mkdtemp(prefix="bench-"))
        if "OBERALP_BENCH_KEEP" in os.environ:
            say(f"logs stay in {directory}")
        else:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        found = Stage(directory, only)
        if target in ("slurm", "both"):
            say(f"Slurm with {nodes} nodes of {gpus} GPUs")
            cluster = SlurmCluster(SlurmSpec(nodes=nodes, gpus=gpus, dbd=accounting), directory / "s")
            found.slurm = stack.enter_context(cluster)
            found.slow = SlowCommands(directory / "slow")
        if target in ("kubernetes", "both"):
            kubeconfig = os.environ.get("KUBECONFIG")
            if kubeconfig:
                found.kubernetes = stack.enter_context(KubernetesCluster(Path(kubeconfig)))
                found.kubernetes.check()
                found.namespace = stack.enter_context(found.kubernetes.namespace())
            elif target == "kubernetes":
                raise SystemExit("Kubernetes is wanted: set KUBECONFIG, or use --target slurm")
            else:
                say("no KUBECONFIG: Kubernetes is left out")
        yield found
