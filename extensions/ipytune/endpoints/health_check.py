"""Whether an endpoint answers, and with what: asked without a prompt, so that it costs nothing."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass

from ipytune.endpoints.errors import EndpointError, TimedOut, Unreachable
from ipytune.endpoints.records import Endpoint


@dataclass(frozen=True)
class Health:
    """What GET /v1/models told. reachable: something answered, even if with a refusal.   models: as listed.

    seconds: from asking to the answer, connecting included.   problem: what is wrong and what to do; "" for nothing.
    """

    reachable: bool
    models: tuple[str, ...] = ()
    seconds: float = 0.0
    problem: str = ""

    @property
    def well(self) -> bool:
        return self.reachable and not self.problem


async def health_of(endpoint: Endpoint, listing: Awaitable[tuple[str, ...]], missing: EndpointError | None) -> Health:
    """The health that `listing`, a question for the models, shows. missing: the key's absence, told before anything
    that follows from it. Raises nothing."""
    began = time.monotonic()
    try:
        models = await listing
    except EndpointError as error:
        reachable = not isinstance(error, (Unreachable, TimedOut))
        problem = error if missing is None or not reachable else missing
        return Health(reachable, (), time.monotonic() - began, str(problem))
    seconds = time.monotonic() - began
    if missing is not None:
        return Health(True, models, seconds, str(missing))
    if models and endpoint.model not in models:
        return Health(True, models, seconds, f"It does not list the model “{endpoint.model}”. Use one that it lists.")
    return Health(True, models, seconds)
