"""From an HTTP status and body to the error that a user can act on. Pure: no I/O."""

from __future__ import annotations

import json
import math

from ipytune.endpoints.chunks import error_text
from ipytune.endpoints.errors import (
    BadRequest,
    EndpointError,
    ModelNotFound,
    RateLimited,
    ServerFailed,
    Unauthorized,
)
from ipytune.endpoints.records import Endpoint

_SHOWN = 400  # characters of a server's own words that go into an error

# Statuses under which the server has begun nothing, so asking again costs nobody a half-written answer.
RETRYABLE = frozenset({429, 502, 503, 504})


def server_words(raw: bytes, content_type: str = "") -> str:
    """What a server said in an error body, on one line and short; a page of HTML is not quoted."""
    text = raw.decode("utf-8", errors="replace").strip()
    if "html" in content_type or text[:15].lower().startswith(("<!doctype", "<html")):
        return "(a web page, not an API answer)"
    try:
        text = error_text(json.loads(text))
    except (json.JSONDecodeError, RecursionError):
        pass
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def retry_after_seconds(header: str | None) -> float | None:
    """Retry-After in seconds. Its date form is not honoured: clocks of clusters differ."""
    try:
        seconds = float(header) if header else None
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None


def rejects_stream_options(status: int, words: str) -> bool:
    """Older servers refuse `stream_options`; they are asked again without it, and tokens are then estimated."""
    return status in (400, 422) and "stream_options" in words


def error_for(
    endpoint: Endpoint,
    status: int,
    words: str,
    *,
    available: tuple[str, ...] | None = None,
    retry_after: float | None = None,
    has_key: bool = False,
) -> EndpointError:
    """The error for a refused request.

    words: server_words() of the body.   available: the models that the server lists; None when it was not asked or
    did not say.   has_key: whether the request carried a key.
    """
    said = f"The server said: {words}" if words else "The server gave no reason."
    where = f"“{endpoint.name}” ({endpoint.base_url})"
    absent = available is not None and endpoint.model not in available
    if status in (401, 403):
        if not has_key:
            remedy = "Name the variable or file with your key in the endpoint (key_env, key_file), or type a key."
        else:
            remedy = "Check that the key belongs to this server, has not expired, and may use this model."
        return Unauthorized(f"{where} refused the request: {status}.", said, remedy)
    if absent and (status == 404 or status >= 500):
        listed = ", ".join(available[:12]) if available else "none"
        return ModelNotFound(
            f"{where} does not serve the model “{endpoint.model}”.",
            f"It lists: {listed}{'…' if available and len(available) > 12 else ''}. {said}",
            "Use one of the listed names, exactly as written." if available else "Load a model on the server first.",
            available=available or (),
        )
    if status == 404:
        return ModelNotFound(
            f"{where} answered 404.",
            said,
            f"Check the model's name (“{endpoint.model}”) and that the URL ends where the API does, usually in /v1.",
            available=available or (),
        )
    if status == 429:
        wait = f" Wait {retry_after:g} s." if retry_after is not None else " Wait a little."
        return RateLimited(
            f"{where} accepts no more requests just now: 429.",
            said,
            f"Ask less often or for fewer tokens at once.{wait}",
            retry_after=retry_after,
        )
    if status >= 500:
        return ServerFailed(
            f"{where} failed: {status}.",
            said,
            "Look into the server's log; if it has just started, its model may still be loading.",
        )
    if 300 <= status < 400:
        return BadRequest(
            f"{where} redirects elsewhere: {status}.",
            "A key is never sent on to another address.",
            "Use the final URL, with the right scheme (https), and no login page before it.",
        )
    return BadRequest(f"{where} did not accept the request: {status}.", said, "Change what the server names.")
