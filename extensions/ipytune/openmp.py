"""How torch's CPU threads wait for each other: decided before torch is imported, for it is read once.

By default they spin. On a node that is shared, a thread spins while the one it waits for has no core: with four other
processes on two cores, training ran at 60 tokens/s spinning and at 201 sleeping.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

WAIT_POLICY = {"OMP_WAIT_POLICY": "PASSIVE"}


def sleep_when_idle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets waiting threads sleep, unless the user decided otherwise. No effect once torch is imported."""
    for name, value in WAIT_POLICY.items():
        environment.setdefault(name, value)
