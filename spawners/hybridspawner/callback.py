"""The hub's side of a node's call: `POST {"port": N}` with the session's own API token.

Who calls is told by the token and nothing else: it must be the very token of a session that waits. 400 for a port that
is not one, 403 for a token that belongs to no session, 404 when nothing waits for it. Never more than a port is taken.
"""

from __future__ import annotations

import json
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from tornado import web

CALLBACK_PATH = "api/hybridspawner/port"


def port_of(body: bytes) -> int:
    """The port in a request's body. ValueError with what is allowed."""
    try:
        data: Any = json.loads(body)
    except ValueError:
        data = None
    port = data.get("port") if isinstance(data, dict) and set(data) == {"port"} else None
    if type(port) is not int or not 1 <= port <= 65535:
        raise ValueError('port: must be a whole number. Allowed: {"port": 1 to 65535}.')
    return port


class CallbackHandler(APIHandler):
    """Registered at hub/api/hybridspawner/port."""

    def check_xsrf_cookie(self) -> None:
        """No cookie is accepted here, only a token, so there is nothing to forge."""

    async def post(self) -> None:
        token = self.get_token()
        if not isinstance(token, orm.APIToken) or token.user is None:
            raise web.HTTPError(403, "The token of a session is needed")
        try:
            port = port_of(self.request.body)
        except ValueError as error:
            raise web.HTTPError(400, str(error)) from None
        user = self._user_from_orm(token.user)
        for spawner in user.spawners.values():
            if getattr(spawner, "token_id", None) == token.id:
                if spawner.session_called_back(port):
                    self.set_status(204)
                    return
                break
        raise web.HTTPError(404, "No session waits for this call")
