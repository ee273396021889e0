"""Training beside tests of hubs and clusters: it gives way to them."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def give_way() -> Iterator[None]:
    """In a parallel run, compute at a lower priority: the other stream waits for processes to answer in time."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.nice(5)
    yield
