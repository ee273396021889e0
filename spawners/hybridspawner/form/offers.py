"""What every target offers for a choice now: the spawn page's only live source. Reads the shared boards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from tornado import web

from ..capacity import Access, Capacity
from ..placement import NoTarget, Placement, offers_for, place
from ..request import InvalidRequest, validate
from ..site import Site, SlurmTarget, Target


def choices(target: Target, access: Access) -> dict[str, list[str]]:
    """What the user may choose on a Slurm target: the site's list is the bound, the user's rights are within it.

    A field is absent where neither is known: then any well-formed name may be tried.
    """
    if not isinstance(target, SlurmTarget):
        return {}
    found = {}
    for field in ("account", "partition", "reservation", "qos"):
        listed: tuple[str, ...] | None = getattr(target, f"{field}s", None)  # a site lists no QoS
        yours: tuple[str, ...] | None = getattr(access, "qos" if field == "qos" else f"{field}s")
        if listed is not None:
            found[field] = [value for value in listed if yours is None or value in yours]
        elif yours is not None:
            found[field] = list(yours)
    return found


def as_json(placement: Placement, site: Site, capacities: Mapping[str, Capacity]) -> dict[str, Any]:
    """The answer of the handler. Times and ages in seconds; null where nothing is known."""
    offers = [
        {
            "target": o.target,
            "title": o.title,
            "fit": o.fit.value,
            "words": o.words,
            "age": o.age,
            "starts_in": o.starts_in,
            "estimate_age": o.estimate_age,
            "note": o.note,
            "choices": choices(
                site.target(o.target), capacities[o.target].access if o.target in capacities else Access()
            ),
        }
        for o in placement.offers
    ]
    return {"chosen": placement.target, "reason": placement.reason, "offers": offers}


class OffersHandler(APIHandler):
    """GET hub/api/hybridspawner/offers?profile=...: 200 with offers and the hub's choice, 400 naming a bad field."""

    @web.authenticated
    async def get(self) -> None:
        user = self.current_user
        if user is None or getattr(user, "spawner", None) is None:
            raise web.HTTPError(403, "Only users can start sessions")
        spawner = user.spawner
        options = {name: self.get_argument(name) for name in self.request.query_arguments if name != "_xsrf"}
        site, groups = spawner.deployment.site, spawner.user_groups
        try:
            request = validate(options, site, groups)
        except InvalidRequest as error:
            raise web.HTTPError(400, "%s", str(error), reason="Bad Request") from None
        capacities = await spawner.deployment.outlook(request, groups, user.name)
        try:
            placement = place(request, site, capacities, groups)
        except NoTarget as error:
            placement = Placement("", str(error), offers_for(request, site, capacities, groups))
        self.set_header("Cache-Control", "no-store")
        self.write(json.dumps(as_json(placement, site, capacities)))
