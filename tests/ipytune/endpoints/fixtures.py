"""The vLLM of this machine, for the tests that need a real one."""

import os

import pytest

from tests.clusters.requirement import unavailable


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """$IPYTUNE_VLLM, which the engine itself reads as well; skips when it is not set."""
    if not os.environ.get("IPYTUNE_VLLM"):
        unavailable("vllm", "IPYTUNE_VLLM is not set", "name there the python of an environment that holds vLLM")
    return os.environ["IPYTUNE_VLLM"]
