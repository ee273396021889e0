"""`python -m tests.browser.screenshots`: the pictures of docs/images, from a running hub and from the panels.

Uses what this machine has: Slurm by itself (root), Kubernetes by $KUBECONFIG, chromium.
"""

import os
import sys
import tempfile
from pathlib import Path

from tests.browser.hub_pages import chromium, log_in, picture
from tests.browser.lab import take_guided_screenshot, take_panel_screenshots
from tests.browser.measuring import take_measuring_screenshots
from tests.clusters.kubernetes import KubernetesCluster
from tests.clusters.slurm import SlurmCluster, SlurmSpec
from tests.hub.process import ROOT, Hub
from tests.hub.sites import clusters_site

IMAGES = ROOT / "docs" / "images"


def take_hub_screenshots(hub: Hub, slurm: SlurmCluster) -> None:
    """spawn.png, and progress.png of a job that waits in a full queue."""
    argv = ["sbatch", "--parsable", "--nodes=4", "--gres=gpu:gh200:2", "--output=/dev/null", "--wrap=sleep 600"]
    filling = slurm.run(*argv).stdout.strip()
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 860}, device_scale_factor=1.5)
        log_in(page, hub, "ada")
        page.click("text=One GPU")
        page.wait_for_selector("[data-target=slurm] .hybrid-offer[data-fit=now]")
        picture(page, IMAGES / "spawn.png")
        page.click("text=A whole node")
        page.click("button[type=submit]")
        page.wait_for_selector("#hybrid-steps li:has-text('In the queue')", timeout=60_000)
        picture(page, IMAGES / "progress.png")
        page.click("#hybrid-cancel")
        page.wait_for_selector("#hybrid-again:visible", timeout=60_000)
    slurm.run("scancel", filling)


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="oberalp-pictures-") as directory:
        Path(directory).chmod(0o755)  # the cluster's daemons run as several users
        slurm = SlurmCluster(SlurmSpec(), Path(directory) / "slurm")
        slurm.up()
        kubernetes = KubernetesCluster(Path(os.environ["KUBECONFIG"])) if os.environ.get("KUBECONFIG") else None
        site = clusters_site(kubernetes, slurm=True)
        next(t for t in site["targets"] if t["name"] == "slurm")["home"] = f"{directory}/home/{{username}}"
        hub = Hub(site, Path(directory) / "hub", dict(slurm.env)).start()
        try:
            take_hub_screenshots(hub, slurm)
        finally:
            hub.close()
            slurm.down()
    take_guided_screenshot(IMAGES)
    take_measuring_screenshots(IMAGES)
    take_panel_screenshots(IMAGES, smoke="--smoke" in sys.argv)


if __name__ == "__main__":
    main()
