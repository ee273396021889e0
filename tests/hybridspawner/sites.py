"""A site for unit tests, as a dict to change and parse."""

from typing import Any

from hybridspawner.site import Site, parse_site


def document() -> dict[str, Any]:
    return {
        "targets": [
            {"name": "pods", "kind": "kubernetes", "title": "Kubernetes"},
            {
                "name": "alps",
                "kind": "slurm",
                "title": "Slurm",
                "partitions": ["normal", "debug"],
                "accounts": ["g1", "g2"],
            },
            {"name": "here", "kind": "local", "title": "This machine"},
        ],
        "environments": [
            {"name": "torch", "title": "PyTorch", "targets": {"pods": {}, "alps": {}, "here": {}}},
            {"name": "secret", "title": "Secret", "targets": {"here": {}}, "groups": ["staff"]},
        ],
        "profiles": [
            {"name": "small", "title": "Small"},
            {
                "name": "gpu",
                "title": "GPU",
                "resources": {"gpus": 2, "gpu_type": "gh200", "cpus": 4, "memory_gb": 8},
                "targets": ["pods", "alps"],
                "runtime": {"default": "00:30:00", "max": "04:00:00"},
            },
        ],
    }


def site(**changes: Any) -> Site:
    return parse_site({**document(), **changes})
