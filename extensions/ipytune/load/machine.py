"""Where the measuring client runs, as reports name it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from ipytune.endpoints.records import Endpoint
from ipytune.load.report import Client
from ipytune.processor import cpu_name, usable_cpus

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def client_facts(endpoint: Endpoint) -> Client:
    """Host, job, processor, versions; whether the endpoint is on the same machine."""
    host = urlsplit(endpoint.base_url).hostname or ""
    try:
        own = version("ipytune")
    except PackageNotFoundError:
        own = "unknown"
    return Client(
        host=platform.node(),
        same_machine=host in _LOOPBACK or host == platform.node(),
        job=_job(),
        cpu=cpu_name(),
        cpus=usable_cpus(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        ipytune=own,
    )


def _job() -> str | None:
    if number := os.environ.get("SLURM_JOB_ID"):
        return f"Slurm job {number}"
    return "a Kubernetes pod" if "KUBERNETES_SERVICE_HOST" in os.environ else None
