"""Which models a server lists: GET /v1/models, within the time of a connection and a bounded size."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from ipytune.endpoints import refusals
from ipytune.endpoints.clocks import Timeouts, Waiting, within
from ipytune.endpoints.errors import ServerFailed
from ipytune.endpoints.keys import bearer, blot, unlogged
from ipytune.endpoints.opening import no_url, start_of
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.unreachable import no_connection

_LARGEST = 8 * 1024 * 1024  # gateways list thousands of models


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: httpx.Headers
    raw: bytes


async def listed_models(
    http: httpx.AsyncClient, endpoint: Endpoint, key: SecretStr | None, timeouts: Timeouts
) -> tuple[str, ...]:
    """The names, in the server's order. Raises EndpointError."""
    reply = await _reply(http, endpoint, key, timeouts)
    if reply.status != 200:
        raise refusals.error_for(
            endpoint,
            reply.status,
            refusals.server_words(reply.raw, reply.headers.get("content-type", ""), key),
            has_key=key is not None,
            route="models",
            location=blot(reply.headers.get("location", ""), key),
        )
    names = _names(reply.raw)
    if names is None:
        raise ServerFailed(
            f"“{endpoint.name}” ({endpoint.base_url}) lists its models in no known form.",
            "GET /v1/models gave no `data` list.",
            "Check that the URL is that of an OpenAI-compatible API.",
        )
    return names


async def _reply(http: httpx.AsyncClient, endpoint: Endpoint, key: SecretStr | None, timeouts: Timeouts) -> _Reply:
    auth = bearer(endpoint, key)
    try:
        with unlogged(key):
            try:
                return await within(_asked(http, endpoint, auth), timeouts.connect)
            except (httpx.RemoteProtocolError, httpx.ReadError):
                # A kept connection that the server had closed meanwhile, as some do after a 500.
                return await within(_asked(http, endpoint, auth), timeouts.connect)
    except (httpx.TimeoutException, asyncio.TimeoutError):  # noqa: UP041  (another class before Python 3.11)
        raise Waiting(endpoint, timeouts).timed_out("connect") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise no_url(endpoint) from None
    except httpx.HTTPError as error:
        raise no_connection(endpoint, error, key) from None


async def _asked(http: httpx.AsyncClient, endpoint: Endpoint, auth: httpx.Auth | None) -> _Reply:
    response = await http.send(http.build_request("GET", f"{endpoint.api_root}/models"), auth=auth, stream=True)
    try:
        return _Reply(response.status_code, response.headers, await start_of(response, _LARGEST))
    finally:
        await response.aclose()


def _names(raw: bytes) -> tuple[str, ...] | None:
    try:
        return tuple(str(item["id"]) for item in json.loads(raw)["data"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
