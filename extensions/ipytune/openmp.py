"""How torch's CPU threads wait for each other: decided before torch is imported, for it is read once.

By default they spin for milliseconds. On a node that is shared, a thread then spins while the one it waits for has no
core. Spinning briefly and then sleeping costs nothing on a quiet node and saves a busy one (SmolLM2-135M, LoRA, two
cores, tokens/s): with five other busy processes 60 by default, 170 so, 201 sleeping at once; with one other process
300 so, 179 sleeping at once.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = "20000"  # some tens of microseconds: the pause between two operators


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Limits how long waiting threads spin, unless the user decided. No effect once torch is imported."""
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
