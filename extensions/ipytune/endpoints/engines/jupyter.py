"""The Jupyter server around a session: the way to an endpoint from a browser and from other sessions.

jupyter-server-proxy forwards PREFIX/proxy/PORT/ to a port of the session, for whoever the Jupyter server lets in: its
users, by the hub. What is found here: that prefix, the public address before it, and where to ask whether a token is
one of those that the Jupyter server lets in (gate.py asks).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

HUB_TOKEN = "JUPYTERHUB_API_TOKEN"


@dataclass(frozen=True)
class JupyterServer:
    """prefix: the path of the server, "/" at both ends.   local: its address from this machine, without the prefix.
    public: its address from elsewhere; "" when the session does not know it.   hub: whether a JupyterHub is before it.
    """

    prefix: str
    local: str
    public: str = ""
    hub: bool = False

    @property
    def identity_url(self) -> str:
        """Answers 200 to a token that the server lets in, 403 to any other."""
        return f"{self.local}{self.prefix}api/me"

    def path(self, port: int) -> str:
        """Of the OpenAI API behind `port`, as jupyter-server-proxy serves it."""
        return f"{self.prefix}proxy/{port}/v1"

    def url(self, port: int) -> str | None:
        """The same with the public address; None when that is not known."""
        return f"{self.public}{self.path(port)}" if self.public else None


def around_us(environ: Mapping[str, str] = os.environ) -> JupyterServer | None:
    """The Jupyter server that this process is part of; None outside of one, or where it cannot proxy."""
    if find_spec("jupyter_server_proxy") is None:
        return None
    return server_from(environ, _record(environ))


def server_from(environ: Mapping[str, str], record: str = "") -> JupyterServer | None:
    """record: the URL in the file that a Jupyter server without a hub keeps about itself, "" when there is none."""
    if environ.get("JUPYTERHUB_SERVICE_PREFIX") and environ.get("JUPYTERHUB_SERVICE_URL"):
        prefix = _slashed(environ["JUPYTERHUB_SERVICE_PREFIX"])
        public = environ.get("JUPYTERHUB_PUBLIC_URL") or environ.get("JUPYTERHUB_HOST", "")
        local = _origin(environ["JUPYTERHUB_SERVICE_URL"])
        return JupyterServer(prefix, local, _origin(public) if public else "", hub=True)
    url = environ.get("JUPYTER_SERVER_URL") or record
    if not url:
        return None
    return JupyterServer(_slashed(urlsplit(url).path), _origin(url), _origin(url))


def _record(environ: Mapping[str, str]) -> str:
    """A kernel knows its server's process; a terminal has JUPYTER_SERVER_URL instead."""
    pid = environ.get("JPY_PARENT_PID", "")
    if not pid.isdigit():
        return ""
    file = _runtime(environ) / f"jpserver-{pid}.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _runtime(environ: Mapping[str, str]) -> Path:
    """Jupyter's runtime directory, by jupyter_core's rule for Linux and macOS."""
    if environ.get("JUPYTER_RUNTIME_DIR"):
        return Path(environ["JUPYTER_RUNTIME_DIR"])
    home = Path(environ.get("HOME", "~")).expanduser()
    if environ.get("JUPYTER_DATA_DIR"):
        return Path(environ["JUPYTER_DATA_DIR"]) / "runtime"
    if sys.platform == "darwin":
        return home / "Library" / "Jupyter" / "runtime"
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "jupyter" / "runtime"


def _origin(url: str) -> str:
    """Scheme, host and port. A server that listens on every address is asked on this machine's own.

    >>> _origin("http://0.0.0.0:8888/user/ada/"), _origin("https://hub.example.org/user/ada/")
    ('http://127.0.0.1:8888', 'https://hub.example.org')
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    host = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, "", "", ""))


def _slashed(path: str) -> str:
    inner = path.strip("/")
    return f"/{inner}/" if inner else "/"
