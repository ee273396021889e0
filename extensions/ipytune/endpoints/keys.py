"""A key on its way into one request, and out of every word that comes back.

Servers repeat keys, in refusals, in headers, in what is no HTTP at all; and the HTTP library logs what it reads when it
is told to debug. So the key of the request that goes on is known to a filter of that library's logs, for as long as it
goes on, and to nobody else.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from ipytune.endpoints.errors import KeyMissing
from ipytune.endpoints.records import Endpoint

_BLOT = "•••"
_LOGGERS = ("httpx", "httpcore.connection", "httpcore.proxy", "httpcore.http11", "httpcore.http2", "httpcore.socks")

_in_use: ContextVar[SecretStr | None] = ContextVar("ipytune_key_in_use", default=None)


class Bearer(httpx.Auth):
    """Puts the key into the header at the last moment; holds it where no repr or traceback shows it."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        yield request


def bearer(endpoint: Endpoint, key: SecretStr | None) -> httpx.Auth | None:
    """The header's author for `key`. Raises KeyMissing for what no header can hold: the header's own refusal would
    repeat it."""
    if key is None:
        return None
    if not _fits(key):
        raise KeyMissing(
            f"The key for the endpoint “{endpoint.name}” cannot be one.",
            "It holds a space, a line break or a letter that no key has; perhaps more than the key was copied.",
            "Put the key alone, on one line, into the variable or file that the endpoint names.",
        )
    return Bearer(key)


def blot(words: str, key: SecretStr | None) -> str:
    """`words` with the key, should a server have repeated it, made unreadable; as JSON, URLs and logs spell it, too."""
    value = key.get_secret_value() if key is not None else ""
    if not value:
        return words
    spellings = {value, json.dumps(value)[1:-1], value.replace("/", "\\/"), quote(value, safe=""), repr(value)[1:-1]}
    for spelling in sorted(spellings, key=len, reverse=True):
        words = words.replace(spelling, _BLOT)
    return words


@contextmanager
def unlogged(key: SecretStr | None) -> Iterator[None]:
    """Keep `key` out of what the HTTP library logs in this block, which must not yield to the caller in between."""
    token = _in_use.set(key)
    try:
        yield
    finally:
        _in_use.reset(token)


def _without_the_key(record: logging.LogRecord) -> bool:
    key = _in_use.get()
    if key is not None:
        record.msg, record.args = blot(record.getMessage(), key), ()
    return True


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_without_the_key)


def _fits(key: SecretStr) -> bool:
    # no local variable holds the key: tracebacks can show those
    return re.fullmatch(r"[\x21-\x7e]+", key.get_secret_value()) is not None
