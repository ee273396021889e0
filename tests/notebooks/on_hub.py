"""Every notebook once through the engine `hub`, in sessions on the real Slurm or the real Kubernetes.

`python -m tests.notebooks.on_hub slurm|kubernetes [--only 03 …] [--out DIR]` starts a hub of this tree, runs each
notebook in smoke as `ipytune run --engine hub` does it from a laptop, and checks that every cell ran without an error
and that no job or pod is left. The executed notebooks and `on-TARGET.json` are written to --out. Slurm: Debian's
packages, as root; Kubernetes: $KUBECONFIG. A notebook takes its smoke time and some ten seconds for its session.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from tests.clusters.fixtures import private_cluster
from tests.clusters.kubernetes import KubernetesCluster
from tests.clusters.slurm import SlurmSpec
from tests.clusters.slurm.processes import wait_for
from tests.hub.process import Hub
from tests.hub.sites import clusters_site
from tests.notebooks.executed import findings_of_execution
from tests.notebooks.judge import ROOT

PROFILE = {
    "name": "lesson",
    "title": "Two cores",
    "description": "A notebook in smoke",
    "resources": {"cpus": 2, "memory_gb": 8},
    "runtime": {"default": "00:30:00", "max": "02:00:00"},
}
LIMIT = 1200.0  # s a notebook


@contextlib.contextmanager
def hub_on(target: str, directory: Path) -> Iterator[tuple[Hub, Any]]:
    """A hub whose sessions of the profile `lesson` go to `target`, and the cluster behind it."""
    with contextlib.ExitStack() as stack:
        slurm = kubernetes = None
        if target == "slurm":
            slurm = stack.enter_context(private_cluster(SlurmSpec()))
            environment = dict(slurm.env)
        else:
            kubernetes = stack.enter_context(KubernetesCluster(Path(os.environ["KUBECONFIG"])))
            environment = {"KUBECONFIG": str(kubernetes.kubeconfig)}
        site = clusters_site(kubernetes, slurm is not None)
        site["profiles"].append({**PROFILE, "targets": [target]})
        for entry in site["targets"]:
            if entry["name"] == "slurm":
                entry["home"] = str(directory / "home" / "{username}")
        hub = Hub(site, directory, environment).start()
        stack.callback(hub.close)
        yield hub, slurm or kubernetes


def sessions(cluster: Any) -> list[str]:
    """Jobs or session pods that are there now."""
    if isinstance(cluster, KubernetesCluster):
        pods = [pod["metadata"] for pod in cluster.pods()]
        return [pod["name"] for pod in pods if pod["labels"].get("component") == "singleuser-server"]
    found: list[str] = cluster.run("squeue", "--noheader", "--format=%i").stdout.split()
    return found


def run(notebook: Path, hub: Hub, token_file: Path, out: Path) -> dict[str, Any]:
    """One notebook; `findings` is empty if all is well."""
    output = out / notebook.name
    command = [sys.executable, "-m", "ipytune", "run", str(notebook), str(output), "--engine", "hub", "--hub", hub.url]
    command += ["--token-file", str(token_file), "--profile", "lesson", "-p", "PROFILE", "smoke"]
    began = time.monotonic()
    with (out / f"{notebook.stem}.log").open("wb") as log:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=LIMIT, check=False
        ).returncode
    findings = [] if code == 0 else [f"ended with {code}; see {notebook.stem}.log"]
    if output.is_file():
        findings += findings_of_execution(nbformat.read(output, as_version=4))
    return {"seconds": round(time.monotonic() - began, 1), "findings": findings}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=["slurm", "kubernetes"])
    parser.add_argument("--only", nargs="+", default=[], metavar="NN")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out: Path = (options.out or Path(tempfile.mkdtemp(prefix="on-hub-"))).absolute()
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="on-hub-", ignore_cleanup_errors=True) as state,
        hub_on(options.target, Path(state) / "hub") as (hub, cluster),
    ):
        Path(state).chmod(0o755)
        token_file = Path(state) / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(hub.login("night").token)
        for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
            if options.only and notebook.name[:2] not in options.only:
                continue
            found[notebook.stem] = run(notebook, hub, token_file, out)
            if not wait_for(lambda: not sessions(cluster), 60, 0.5):
                found[notebook.stem]["findings"].append(f"left behind: {', '.join(sessions(cluster))}")
            print(notebook.stem, found[notebook.stem], flush=True)
            (out / f"on-{options.target}.json").write_text(json.dumps(found, indent=1) + "\n")
    bad = sum(bool(result["findings"]) for result in found.values())
    print(f"{len(found) - bad} passed, {bad} failed on {options.target}; notebooks in {out}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
