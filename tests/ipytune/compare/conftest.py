"""Servers with known answers: one that says which model was asked what, and one that stalls after its first word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from ipytune.endpoints import Endpoint
from ipytune.mock import Behaviour, MockServer, start_mock


def said(body: Mapping[str, Any]) -> str:
    """Which model was asked, and the last message."""
    return f"{body['model']} heard {body['messages'][-1]['content']}"


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with start_mock(Behaviour(models=("base", "tuned", "third"), text=said), process=False) as running:
        yield running


@pytest.fixture
def stalled() -> Iterator[MockServer]:
    with start_mock(Behaviour(models=("slow",), text="one two three", hang_after=1), process=False) as running:
        yield running


@pytest.fixture
def pair(mock: MockServer) -> list[Endpoint]:
    return [mock.endpoint("base", "base"), mock.endpoint("tuned", "tuned")]


def asked(mock: MockServer, model: str) -> list[Sequence[str]]:
    """What was sent to a model: for each request, the contents of its messages."""
    bodies = [request.body for request in mock.requests() if request.path.endswith("/completions")]
    return [[message["content"] for message in body["messages"]] for body in bodies if body["model"] == model]
