"""Everything that a hub needs to run HybridSpawner, for jupyterhub_config.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tornado.web import StaticFileHandler

from . import metrics, server_api
from .callback import CALLBACK_PATH, CallbackHandler
from .form import OFFERS_PATH, STATIC, STATIC_PATH
from .form.offers import OffersHandler
from .lease_watch import LEASES_ROUTES, LeaseHandler
from .reconcile import watch
from .sessions import SESSIONS_ROUTES, TARGETS_PATH, SessionHandler, TargetsHandler
from .site import Site
from .spawner import HybridSpawner


def configure(c: Any, site: Site, state_dir: Path) -> None:
    """Set the spawner, its handlers and its pages on JupyterHub's configuration `c` for `site`."""
    c.JupyterHub.spawner_class = HybridSpawner
    c.HybridSpawner.site_file = str(site.path)
    c.HybridSpawner.state_dir = str(state_dir)
    c.HybridSpawner.poll_interval = 10  # a poll looks at what the watchers know; it asks no scheduler
    c.JupyterHub.extra_handlers = [
        (rf"/{CALLBACK_PATH}", CallbackHandler),
        (rf"/{OFFERS_PATH}", OffersHandler),
        *((route, SessionHandler) for route in SESSIONS_ROUTES),
        *((route, LeaseHandler) for route in LEASES_ROUTES),
        (rf"/{TARGETS_PATH}", TargetsHandler),
        (rf"/{STATIC_PATH}/(.*)", StaticFileHandler, {"path": str(STATIC)}),
    ]
    # the progress page appears at once, not after the ten seconds that JupyterHub waits for a quick start; two leave
    # time for the answer to bad input
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 2}
    c.JupyterHub.template_paths = [str(Path(__file__).with_name("templates"))]
    server_api.install()
    metrics.declare(site)
    watch(Path(str(site.path)), state_dir)
