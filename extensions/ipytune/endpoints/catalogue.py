"""The endpoints that can be named: of this session's own servers, of the user's file, and of the site.

    Catalogue.load().get("site")                     # an Endpoint
    with register(Endpoint(name="tuned", ...)): ...  # known to this user's sessions here while the process lives

Of one name in several places the session's goes before the user's, the user's before the site's. A source that cannot
be read hides nothing of the others: `problems` tells it.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from typing import Literal

from ipytune.endpoints import user_file
from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.registration import Registration, register, registered
from ipytune.endpoints.untrusted import one_line

__all__ = ["VARIABLE", "Catalogue", "Entry", "Registration", "Source", "register"]

VARIABLE = "IPYTUNE_ENDPOINTS"
"""Environment variable with the site's endpoints: a JSON list of Endpoint's fields."""

Source = Literal["site", "user", "session"]

_NAMED = 12  # endpoints named in an error


@dataclass(frozen=True)
class Entry:
    endpoint: Endpoint
    source: Source


@dataclass(frozen=True)
class Catalogue:
    """At one moment. `entries` hold every name once; `problems` are sentences."""

    entries: tuple[Entry, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def load(cls) -> Catalogue:
        """As it is now. Raises nothing: what cannot be read is among the problems."""
        served, served_problems = registered()
        kept, kept_problems = user_file.read(user_file.location())
        offered, offered_problems = _of_site(os.environ.get(VARIABLE, ""))
        entries: dict[str, Entry] = {}
        sources: tuple[tuple[Source, list[Endpoint]], ...] = (("session", served), ("user", kept), ("site", offered))
        for source, endpoints in sources:
            for endpoint in endpoints:
                entries.setdefault(endpoint.name, Entry(endpoint, source))
        return cls(tuple(entries.values()), (*served_problems, *kept_problems, *offered_problems))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.endpoint.name for entry in self.entries)

    def get(self, name: str) -> Endpoint:
        """The endpoint of that name. Raises BadRequest naming the nearest ones."""
        for entry in self.entries:
            if entry.endpoint.name == name:
                return entry.endpoint
        near = difflib.get_close_matches(name.lower(), [each.lower() for each in self.names], 3, 0.5)
        likely = [each for each in self.names if each.lower() in near]
        if likely:
            remedy = f"Did you mean {' or '.join(likely)}?"
        elif self.names:
            more = "…" if len(self.names) > _NAMED else ""
            remedy = f"There is: {', '.join(self.names[:_NAMED])}{more}. A URL does as well."
        else:
            remedy = "Give a URL, or add one: ipytune endpoints add NAME URL."
        raise BadRequest(f"There is no endpoint “{one_line(name, 60)}”.", " ".join(self.problems), remedy)


def _of_site(text: str) -> tuple[list[Endpoint], list[str]]:
    if not text.strip():
        return [], []
    try:
        items = json.loads(text)
        if not isinstance(items, list):
            raise ValueError
    except (ValueError, RecursionError):
        return [], [f"{VARIABLE} holds no list of endpoints. Tell the site's support."]
    found: list[Endpoint] = []
    problems: list[str] = []
    for number, item in enumerate(items, 1):
        try:
            found.append(user_file.listed(item))
        except BadRequest as error:
            problems.append(f"{VARIABLE}: endpoint {number} is left out. {error}")
    return found, problems
