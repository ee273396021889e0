"""sites/test.yaml, completed with what depends on the machine that the tests run on."""

import sys
from typing import Any

import yaml

from tests.clusters.kubernetes import HOST_IMAGE, KubernetesCluster, host_volumes
from tests.hub.process import ROOT

SESSION_IMAGE = "localhost/oberalp/singleuser:dev"  # as images/build names it


def clusters_site(kubernetes: KubernetesCluster | None = None, slurm: bool = False) -> dict[str, Any]:
    """The test site with the targets that are there. Pods run this machine's own Python in an empty image."""
    site: dict[str, Any] = yaml.safe_load((ROOT / "sites" / "test.yaml").read_text())
    present = {"local": True, "slurm": slurm, "kubernetes": kubernetes is not None}
    site["targets"] = [t for t in site["targets"] if present[t["name"]]]
    site["profiles"] = [p for p in site["profiles"] if "targets" not in p or any(present[t] for t in p["targets"])]
    for profile in site["profiles"]:
        if "targets" in profile:
            profile["targets"] = [t for t in profile["targets"] if present[t]]
    realisations = site["environments"][0]["targets"]
    site["environments"][0]["targets"] = {k: v for k, v in realisations.items() if present[k]}
    for target in site["targets"]:
        if "skeleton" in target:
            target["skeleton"] = str(ROOT / "notebooks")
    if slurm:
        site["environments"][0]["targets"]["slurm"] = {"python": sys.executable}
    if kubernetes is not None:
        # pods reach the hub by the node's address, so the hub listens there as well
        site["hub"] |= {"hub_ip": "0.0.0.0", "connect_url": f"http://{kubernetes.node_ip}:{{port}}"}
        volumes, mounts = host_volumes(str(ROOT))
        site["environments"][0]["targets"]["kubernetes"] = {
            "image": HOST_IMAGE,
            "traits": {
                "cmd": [sys.executable, "-m", "jupyterhub.singleuser", "--allow-root"],
                "image_pull_policy": "Never",
                "volumes": [*volumes, {"name": "home", "emptyDir": {}}],
                "volume_mounts": [*mounts, {"name": "home", "mountPath": "/home/session"}],
                "working_dir": "/home/session",
                "environment": {"HOME": "/home/session", "PATH": "/usr/local/bin:/usr/bin:/bin"},
            },
        }
        site["environments"].append(
            {
                "name": "image",
                "title": "The single-user image",
                "targets": {"kubernetes": {"image": SESSION_IMAGE, "traits": {"image_pull_policy": "Never"}}},
            }
        )
    return site
