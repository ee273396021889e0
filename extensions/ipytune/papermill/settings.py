"""What a run through a hub must be told: which hub, whose token, which session.

Each is looked for in the keywords of `papermill.execute_notebook`, then (the fields of the request) among the
notebook's parameters, so that `papermill … -p profile gpu-1` says it, then in the environment. A token is only ever
named, by a variable or a file, so that it stands in no command line, no notebook and no error. Pure, but for reading
that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr

from ipytune.papermill.errors import SettingsError

REQUEST_FIELDS = (
    "profile",
    "environment",
    "target",
    "runtime",
    "account",
    "partition",
    "reservation",
    "notebook",
    "lease",
)
"""The fields of the hub's one request schema. The hub judges their values."""

LEASE = "00:02:00"
"""How long a session outlives a client that is gone without a word: long enough for a hub to be restarted."""

SCOPES = "servers, read:servers and access:servers of yourself"
KEYWORDS = ("hub_url", "token_file", "token_variable", "user", "session_cwd", *REQUEST_FIELDS)


class Settings(BaseModel):
    """A complete set. hub: its address without `/hub`. request: only fields that were given, and the lease."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hub: str
    token: SecretStr
    user: str | None = None  # None: the owner of the token
    cwd: str = ""  # of the kernel, below the session's home
    request: dict[str, str]


def gather(keywords: Mapping[str, Any], parameters: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """The settings of a run. SettingsError names everything that is missing, and where to get it."""
    hub, token, faults = None, None, []
    try:
        hub = _hub(keywords, environment)
    except SettingsError as error:
        faults.append(error)
    try:
        token = _token(keywords, environment, hub)
    except SettingsError as error:
        faults.append(error)
    if faults or hub is None or token is None:
        raise SettingsError(
            *(" ".join(filter(None, (getattr(f, p) for f in faults))) for p in ("what", "why", "remedy"))
        )
    return Settings(
        hub=hub,
        token=token,
        user=_text(keywords.get("user")) or environment.get("OBERALP_USER") or None,
        cwd=_below_home(_text(keywords.get("session_cwd")) or environment.get("OBERALP_CWD", "")),
        request=_request(keywords, parameters, environment),
    )


def hub_is_named(environment: Mapping[str, str]) -> bool:
    """Whether the environment says which hub to use, so that a run may go there without being told to."""
    return bool(environment.get("OBERALP_HUB"))


def hub_root(address: str) -> str:
    """The address of a hub without its own part, from whichever of its addresses somebody copied.

    >>> hub_root("https://hub.example.org/jupyter/hub/home"), hub_root("http://127.0.0.1:8081/hub/api")
    ('https://hub.example.org/jupyter', 'http://127.0.0.1:8081')
    """
    try:
        parts = urlsplit(address.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise SettingsError(
            "The hub's address cannot be used.",
            "It must begin with https:// or http:// and hold neither name nor password.",
            "Copy it from your browser, such as https://hub.example.org.",
        )
    path, found, _ = f"{parts.path.rstrip('/')}/".partition("/hub/")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path if found else parts.path.rstrip('/')}"


def _hub(keywords: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    names = ("OBERALP_HUB", "JUPYTERHUB_PUBLIC_HUB_URL", "JUPYTERHUB_API_URL")
    address = _text(keywords.get("hub_url")) or next((environment[n] for n in names if environment.get(n)), "")
    if not address:
        raise SettingsError(
            "No hub is named.",
            remedy="Set OBERALP_HUB to its address as in your browser, such as https://hub.example.org.",
        )
    return hub_root(address)


def _token(keywords: Mapping[str, Any], environment: Mapping[str, str], hub: str | None) -> SecretStr:
    where = f"{hub or 'https://YOUR-HUB'}/hub/token"
    get_one = f"Get one at {where} with the scopes {SCOPES}, put it into a file of mode 600 and its path into"
    if file := _text(keywords.get("token_file")) or environment.get("OBERALP_TOKEN_FILE"):
        try:
            value = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise SettingsError(
                f"The token file {file} cannot be read.", f"{reason}.", f"{get_one} OBERALP_TOKEN_FILE."
            ) from None
        return _usable(value, f"The file {file}", get_one)
    named = _text(keywords.get("token_variable"))
    for name in (named,) if named else ("OBERALP_TOKEN", "JUPYTERHUB_API_TOKEN"):
        if value := environment.get(name, "").strip():
            return _usable(value, f"The variable {name}", get_one)
    what = f"The variable {named}, which should hold the token, is not set." if named else "No token for the hub."
    raise SettingsError(what, remedy=f"{get_one} OBERALP_TOKEN_FILE.")


def _usable(value: str, place: str, remedy: str) -> SecretStr:
    if not value or not all("!" <= letter <= "~" for letter in value):
        why = "It is empty, or holds a space, a line break or a letter that no token has."
        raise SettingsError(f"{place} holds no token.", why, f"{remedy} OBERALP_TOKEN_FILE.")
    return SecretStr(value)


def _request(
    keywords: Mapping[str, Any], parameters: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, str]:
    request = {"lease": LEASE}
    for field in REQUEST_FIELDS:
        for value in (keywords.get(field), parameters.get(field), environment.get(f"OBERALP_{field.upper()}")):
            if value is not None and value != "":
                request[field] = _field(field, value)
                break
    return request


def _field(field: str, value: object) -> str:
    if isinstance(value, str):
        return value
    # an account may be a number; a time that YAML read as one is no longer what was written
    if isinstance(value, int) and not isinstance(value, bool) and field not in ("runtime", "lease"):
        return str(value)
    raise SettingsError(
        f"{field}: must be text, not {value!r}.",
        "The fields of the request are text." if field not in ("runtime", "lease") else "YAML reads 1:30:00 as 5400.",
        'Put it in quotes in a parameters file; on the command line use -r, as in -r runtime "01:30:00".',
    )


def _below_home(path: str) -> str:
    path = path.strip()
    if path.startswith(("/", "~")) or ".." in path.split("/") or "\\" in path:
        raise SettingsError(
            f"The working directory {path!r} is not below the session's home.",
            remedy="Give it relative to home, such as project/notebooks.",
        )
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _text(value: object) -> str:
    return "" if value is None else str(value)
