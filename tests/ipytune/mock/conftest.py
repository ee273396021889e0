from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from ipytune.mock import Behaviour, MockServer, start_mock
from tests.ipytune.mock.talk import Talk


@pytest.fixture
def serve() -> Iterator[Callable[..., Talk]]:
    """serve(ttft=0.1, ...): a mock in a thread, and a way to talk with it; stopped after the test."""
    with ExitStack() as stack:

        def start(behaviour: Behaviour | None = None, **fields: Any) -> Talk:
            server = stack.enter_context(start_mock(behaviour or Behaviour(**fields), process=False))
            http = stack.enter_context(httpx.Client(base_url=server.root, trust_env=False, timeout=20))
            return Talk(server, http)

        yield start


@pytest.fixture(scope="module")
def process() -> Iterator[MockServer]:
    """A mock in a process of its own."""
    with start_mock(Behaviour(ttft=0.01, itl=0.001, tokens=8)) as server:
        yield server
        assert server.running
    assert not server.running
