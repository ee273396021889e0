"""User names as names of directories and files."""

from __future__ import annotations

import re
from urllib.parse import quote

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}", re.ASCII)


def directory_name(username: str) -> str:
    """A directory name for a user: the name itself if it is plain, else percent-encoded. Never `.`, `..` or a path.

    Injective: two users never share a directory ('%' is not plain, so an encoded name is never somebody's plain one).
    """
    return username if _PLAIN.fullmatch(username) else quote(username, safe="").replace(".", "%2E").replace("~", "%7E")
