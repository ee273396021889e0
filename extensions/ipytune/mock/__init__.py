"""A mock server: OpenAI's API with known answers, known times and known faults, to measure and test clients with.

    from ipytune.mock import Behaviour, start_mock

    with start_mock(Behaviour(ttft=0.2, itl=0.02, tokens=50)) as mock:
        chat(mock.endpoint(), "hello")
        print(mock.stats().tokens, mock.truth()[0].writes)

Nothing here needs a package that is not Python's own; only `endpoint()` imports the endpoint record.
"""

from ipytune.mock.behaviour import Behaviour
from ipytune.mock.records import Asked, Stats, Truth
from ipytune.mock.server import MockFailed, MockServer, start_mock

__all__ = ["Asked", "Behaviour", "MockFailed", "MockServer", "Stats", "Truth", "start_mock"]
