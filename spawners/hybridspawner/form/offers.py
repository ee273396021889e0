"""What every target offers for a choice now: the spawn page's only live source. Reads the shared capacity board."""

from __future__ import annotations

import json
from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from tornado import web

from ..placement import NoTarget, Placement, offer, place
from ..request import InvalidRequest, candidates, validate


def as_json(placement: Placement) -> dict[str, Any]:
    offers = [
        {"target": o.target, "title": o.title, "fit": o.fit.value, "words": o.words, "age": o.age}
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
        capacities = await spawner.deployment.capacities(request, groups)
        try:
            answer = as_json(place(request, site, capacities, groups))
        except NoTarget as error:
            names = candidates(site, site.profile(request.profile), site.environment(request.environment), groups)
            offers = tuple(offer(name, request, site, capacities.get(name)) for name in names)
            answer = as_json(Placement("", str(error), offers))
        self.set_header("Cache-Control", "no-store")
        self.write(json.dumps(answer))
