from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipytune.endpoints import Endpoint
from tests.ipytune.endpoints.mock_server import Mock, mock_server


@pytest.fixture
def mock() -> Iterator[Mock]:
    with mock_server() as running:
        yield running


@pytest.fixture
def endpoint(mock: Mock) -> Endpoint:
    return Endpoint(name="e", base_url=mock.url, model="m")
