"""HybridSpawner: one JupyterHub spawner over Slurm allocations, Kubernetes pods and local processes."""

from __future__ import annotations

from .configure import configure
from .site import Site, SiteError, load_site
from .spawner import HybridSpawner

__all__ = ["HybridSpawner", "Site", "SiteError", "configure", "load_site"]
