"""What a test does when something it needs is not on this machine: skip with the reason and the remedy, or fail.

$OBERALP_REQUIRE (a comma-separated list of kinds: slurm, kubernetes, browser, images, vllm) names what must be there:
CI sets it, so that a test that silently stopped running is seen.
"""

import os
from typing import NoReturn

import pytest


def unavailable(kind: str, reason: str, remedy: str) -> NoReturn:
    """Skip the current test, or fail it when $OBERALP_REQUIRE names `kind`. `remedy`: the command that enables it."""
    message = f"{kind}: {reason}. To enable: {remedy}"
    if kind in {name.strip() for name in os.environ.get("OBERALP_REQUIRE", "").split(",")}:
        pytest.fail(f"{message} (required by OBERALP_REQUIRE)", pytrace=False)
    pytest.skip(message)
