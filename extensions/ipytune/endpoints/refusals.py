"""From an HTTP status and body to the error that a user can act on. Pure: no I/O.

Gateways with budgets (LiteLLM and its like) refuse with 400, 401, 403 or 429 what is a used-up budget, and commercial
services with 402 or 429: their words and types tell it apart from a wrong key and from a rush.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from ipytune.endpoints.chunks import error_text
from ipytune.endpoints.errors import (
    BadRequest,
    BudgetExceeded,
    EndpointError,
    ModelNotFound,
    RateLimited,
    ServerFailed,
    Unauthorized,
)
from ipytune.endpoints.keys import blot
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.untrusted import one_line

_SHOWN = 400  # characters of a server's own words that go into an error
_LISTED = 12  # models named in an error

# Statuses under which the server has begun nothing, so asking again costs nobody a half-written answer.
RETRYABLE = frozenset({429, 502, 503, 504})

# "Budget has been exceeded", "has exceeded their budget", "ExceededBudget", "exceeded your current quota"
_BUDGET = re.compile(
    r"budget( has been|_| is)? ?exceeded|exceeded_?(token_?)?budget|over[ _]budget"
    r"|exceeded (your |their |its |the )?(current )?(budget|quota)"
    r"|insufficient[ _](quota|credits?|funds|balance)|out of credits?|credit balance is too low",
    re.IGNORECASE,
)
# A quota of requests in a minute is no budget: it is there again in a minute.
_PACE = re.compile(r"per[ _-]?(second|minute|hour)|rate[ _-]?limit|\b[rt]p[ms]\b|/(s|min|minute)\b", re.IGNORECASE)
_NO_MODEL = re.compile(
    r"(invalid|unknown|unrecogni[sz]ed|no such) model|access[\w ]{0,20} model"
    r"|model.{0,120}?(not (be )?found|(not|n't) exist|not (available|served|supported|a valid))",
    re.IGNORECASE | re.DOTALL,
)


def server_words(raw: bytes, content_type: str = "", key: SecretStr | None = None) -> str:
    """What a server said in an error body, on one line and short; a page of HTML is not quoted.

    key: blotted out before anything is cut off, so that no half of it is left at the end.
    """
    text = raw.decode("utf-8", errors="replace").strip()
    if "html" in content_type or text[:15].lower().startswith(("<!doctype", "<html")):
        return "(a web page, not an API answer)"
    try:
        text = error_text(json.loads(text))
    except (ValueError, RecursionError):
        pass
    return one_line(blot(text, key), _SHOWN)


def retry_after_seconds(header: str | None, date: str | None = None) -> float | None:
    """Retry-After in seconds: a number, or a moment. date: the answer's own Date, since clocks of clusters differ.

    >>> retry_after_seconds("7"), retry_after_seconds("soon")
    (7.0, None)
    >>> retry_after_seconds("Sun, 06 Nov 1994 08:49:47 GMT", "Sun, 06 Nov 1994 08:49:37 GMT")
    10.0
    """
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        moment = _moment(header)
        if moment is None:
            return None
        return max(0.0, (moment - (_moment(date) or datetime.now(timezone.utc))).total_seconds())
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def rejects_stream_options(status: int, words: str) -> bool:
    """Older servers refuse `stream_options`; they are asked again without it, and tokens are then estimated."""
    return status in (400, 422) and "stream_options" in words


def worth_listing(status: int, words: str) -> bool:
    """Whether the server's list of models may explain the refusal: gateways say 400, 401 or 403, some servers 500, for
    one that they do not have."""
    return status == 404 or status >= 500 or (status in (400, 401, 403) and _NO_MODEL.search(words) is not None)


def error_for(
    endpoint: Endpoint,
    status: int,
    words: str,
    *,
    available: tuple[str, ...] | None = None,
    retry_after: float | None = None,
    has_key: bool = False,
    route: str = "chat/completions",
    location: str | None = None,
) -> EndpointError:
    """The error for a refused request.

    words: server_words() of the body.   available: the models that the server lists; None when it was not asked or
    did not say.   has_key: whether the request carried a key.   route: what was asked.   location: of a redirect,
    the key blotted out.
    """
    said = f"The server said: {words}" if words else "The server gave no reason."
    where = f"“{endpoint.name}” ({endpoint.base_url})"
    if status == 402 or (400 <= status < 500 and _BUDGET.search(words) and not _PACE.search(words)):
        return BudgetExceeded(
            f"The budget for {where} is used up: {status}.",
            said,
            "Ask who gave you the key for more, wait until the budget is renewed, or take another endpoint.",
        )
    if available is not None and endpoint.model not in available and worth_listing(status, words):
        listed = ", ".join(available[:_LISTED]) if available else "none"
        return ModelNotFound(
            f"{where} does not serve the model “{endpoint.model}”.",
            f"It lists: {listed}{'…' if len(available) > _LISTED else ''}. {said}",
            "Use one of the listed names, exactly as written." if available else "Load a model on the server first.",
            available=available,
        )
    if status in (401, 403):
        if not has_key:
            remedy = "Name the variable or file with your key in the endpoint (key_env, key_file), or type a key."
        else:
            remedy = "Check that the key belongs to this server, has not expired, and may use this model."
        return Unauthorized(f"{where} refused the request: {status}.", said, remedy)
    if status == 404:
        remedy = f"Check the model's name (“{endpoint.model}”) and the URL: it ends where the API does, often in /v1."
        if route == "completions":
            remedy += " Many services have no /completions: ask such a one with chat messages."
        return ModelNotFound(f"{where} answered 404.", said, remedy, available=available or ())
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
        target = _plain_url(location)
        return BadRequest(
            f"{where} redirects elsewhere: {status}{f', to {target}' if target else ''}.",
            "A key is never sent on to another address.",
            "Use the final URL, with the right scheme (https), and no login page before it.",
        )
    return BadRequest(f"{where} did not accept the request: {status}.", said, "Change what the server names.")


def _moment(header: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(header) if header else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment is not None and moment.tzinfo is None:  # "-0000": the zone is not told, and HTTP's is always UTC
        moment = moment.replace(tzinfo=timezone.utc)
    return moment


def _plain_url(location: str | None) -> str:
    """Where a redirect leads, without what may be secret in it: user, query, fragment."""
    try:
        parts = urlsplit(location or "")
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return ""
    plain = urlunsplit((parts.scheme, f"{host}{port}", parts.path, "", ""))
    return one_line(plain, _SHOWN)
