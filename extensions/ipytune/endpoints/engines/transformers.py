"""The command and environment of transformers' server, as server_process.py starts it. Pure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ipytune.endpoints.engines.facts import Gpu
from ipytune.endpoints.engines.plan import Plan


def plan(directory: Path, *, host: str, port: int, gpus: Sequence[Gpu] = ()) -> Plan:
    """directory: of the server, with its models (layout.py) and its key. port: 0 has it find one by itself."""
    return Plan(
        engine="transformers",
        command=(sys.executable, "-m", "ipytune.endpoints.server_process", str(directory), host, str(port)),
        environment={
            "HF_HUB_CACHE": str(directory / "models"),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": ",".join(gpu.name for gpu in gpus),
        },
    )
