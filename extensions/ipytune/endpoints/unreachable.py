"""No connection, or one that is not to be trusted: which certificates count, and what each failure means.

Trusted is what SSL_CERT_FILE or SSL_CERT_DIR hold; without those the machine's own authorities (where a site puts its
own) and certifi's.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import urlsplit

import certifi
import httpx
from pydantic import SecretStr

from ipytune.endpoints.errors import BadRequest, EndpointError, Unreachable, Untrusted
from ipytune.endpoints.keys import blot
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.untrusted import one_line

# For httpx's `mounts`: a site's proxy is for the outside; a server on this machine must not be sought through it.
DIRECT: dict[str, None] = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}
_SHOWN = 300
# Numbers of OpenSSL's verification results (x509_vfy.h).
_NOT_YET, _EXPIRED, _ITSELF, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 18, 62, 64


def trusted() -> ssl.SSLContext:
    """The certificates that count here. Raises BadRequest when SSL_CERT_FILE or SSL_CERT_DIR cannot be read."""
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    try:
        return _context(file, folder)
    except (OSError, ssl.SSLError) as error:
        raise BadRequest(
            "The certificates of this session cannot be read.",
            f"SSL_CERT_FILE or SSL_CERT_DIR names {file or folder}: {error.strerror or 'it holds none'}.",
            "Name a file with certificates in PEM form, or unset the variable, and start the kernel again.",
        ) from None


def no_connection(endpoint: Endpoint, error: httpx.HTTPError, key: SecretStr | None = None) -> EndpointError:
    """The error for a request that got no answer."""
    where = f"“{endpoint.name}” cannot be reached at {endpoint.base_url}."
    causes = tuple(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(endpoint, cause)
        if isinstance(cause, ssl.SSLError):
            return Untrusted(
                f"No encrypted connection to “{endpoint.name}” ({endpoint.base_url}).",
                f"TLS failed: {_said(cause, key)}.",
                "If the server speaks plain http, write http:// instead of https://. Else ask who runs it: its TLS may "
                "be older than this session accepts.",
            )
    if isinstance(error, httpx.ProxyError):
        return Unreachable(
            where,
            f"The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names did not pass the request: {_said(error, key)}.",
            "Add the server's host to NO_PROXY if it needs no proxy, and start the kernel again.",
        )
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        host = urlsplit(endpoint.base_url).hostname
        return Unreachable(where, f"No address is known for the name {host}.", "Check how the host is spelt.")
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return Unreachable(
            where,
            "The machine is there, but nothing listens on that port.",
            "Check that the server runs, has finished starting, and that the port is right.",
        )
    return Unreachable(
        where,
        f"{_said(error, key)}.",
        "Check that the server runs and that host and port are right. From a pod, private addresses are closed "
        "unless the site opens them.",
    )


@lru_cache(maxsize=4)
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    if file is not None or folder is not None:
        # as httpx: the file goes before the folder; both replace the usual authorities
        return ssl.create_default_context(cafile=file, capath=None if file is not None else folder)
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=certifi.where())
    return context


def _untrusted(endpoint: Endpoint, error: ssl.SSLCertVerificationError) -> Untrusted:
    what = f"The certificate of “{endpoint.name}” ({endpoint.base_url}) is not to be trusted, so nothing was sent."
    if error.verify_code == _EXPIRED:
        why, remedy = "It has expired.", "Tell who runs the server; and look whether this machine's clock is right."
    elif error.verify_code == _NOT_YET:
        why, remedy = "It is not valid yet.", "Look whether this machine's clock is right."
    elif error.verify_code in (_OTHER_NAME, _OTHER_ADDRESS):
        why = f"It is for another name: {one_line(error.verify_message, _SHOWN).rstrip('.')}."
        remedy = "Write the name that it is for into the URL."
    else:
        signed = "It is signed by itself" if error.verify_code == _ITSELF else "Its authority is not known here"
        why = f"{signed}: {one_line(error.verify_message, _SHOWN).rstrip('.')}."
        remedy = (
            "If it is right (ask who runs the server), add its authority's certificate to a file of the usual ones in "
            "PEM form, name that file in SSL_CERT_FILE, and start the kernel again."
        )
    return Untrusted(what, why, remedy)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything that led to it, groups of errors included."""
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += [cause for cause in (each.__cause__, each.__context__) if cause is not None]
        members = getattr(each, "exceptions", ())  # an ExceptionGroup, or its stand-in before Python 3.11
        left += members if isinstance(members, (tuple, list)) else ()


def _said(error: BaseException, key: SecretStr | None) -> str:
    """An error's words: without the key (a broken answer is quoted in them), and without the library's source line."""
    words = re.sub(r"\s*\(_ssl\.c:\d+\)", "", blot(str(error), key))
    return one_line(words, _SHOWN).rstrip(".") or type(error).__name__
