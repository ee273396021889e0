"""What HybridSpawner needs of a target, and of the spawner that it runs there.

A target is one entry of the site file, shared by all users: it reads the capacity and builds children. A child is an
ordinary JupyterHub spawner (LocalProcessSpawner, batchspawner's SlurmSpawner, KubeSpawner) with the few methods of
`SessionSpawner` on top. Children are composed, never linked: they get an explicit list of attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from jupyterhub.spawner import Spawner

from ..capacity import Access, Reading
from ..diagnose import StartFailed
from ..endpoints import SiteEndpoint, session_variables
from ..request import SpawnRequest
from ..site import Realisation, Resources

if TYPE_CHECKING:
    from ..events import EventLog

HANDED_OVER = (
    *("user", "orm_spawner", "hub", "authenticator", "oauth_client_id", "cookie_options", "cookie_host_prefix_enabled"),
    *("public_url", "public_hub_url", "proxy_spec", "trusted_alt_names", "internal_ssl", "internal_trust_bundles"),
    *("internal_certs_location", "cert_paths", "admin_access", "api_token", "handler", "_deprecated_db_session"),
)
"""What belongs to the session and not to the kind of spawner. ip, port, cmd, timeouts and the like stay the child's."""

CUSTOMISED = ("environment", "args", "default_url", "notebook_dir", "debug", "disable_user_config", "hub_connect_url")
"""What hooks and group_overrides may set on HybridSpawner itself; handed over when they did."""


@dataclass(frozen=True)
class Launch:
    """A placed request with everything that its target needs to start it."""

    request: SpawnRequest
    resources: Resources
    realisation: Realisation
    endpoints: tuple[SiteEndpoint, ...] = ()
    """The site's model endpoints that this user may ask."""

    @property
    def variables(self) -> dict[str, str]:
        """What the session's environment gets by the site file; the environment's own variables go before."""
        return {**session_variables(self.endpoints), **self.realisation.variables}


class SessionSpawner(Protocol):
    """A child: a JupyterHub spawner, plus this."""

    progress_log: EventLog | None
    """Where the child reports the steps of a start; set before start()."""

    on_change: Callable[[], None]
    """To be called at every change of what get_state() returns, so that it is committed at once."""

    mark: str
    """What a job, pod or process of this session carries, so that it can be found again: `new_mark` of its hub."""

    gate: AbstractAsyncContextManager[Any]
    """To be held while the session is handed to its target: a target takes so many at a time (`starts_at_a_time`)."""

    queue_seconds: float
    """How long the session waited for its scheduler so far; 0 where there is no queue."""

    @property
    def waiting(self) -> bool:
        """Whether the session only waits for the scheduler: it has begun nothing on a node."""
        ...

    async def start_session(self) -> str:
        """Start, and return the URL of the server (which need not answer yet). Raises StartFailed."""
        ...

    async def ended(self) -> StartFailed | None:
        """Proof that a started session has ended, as a diagnosis; None while it runs or nothing is known."""
        ...

    async def log_tail(self) -> str:
        """The last lines of the session's log, without secrets; empty if there are none to be had."""
        ...

    async def stop_session(self, now: bool) -> bool:
        """End the session; True once its end is proved."""
        ...

    async def current_url(self) -> str | None:
        """The server's URL after a restart of the hub; may wait for a queued session. None: keep the one on record."""
        ...


class Target(Protocol):
    """One place where sessions can run."""

    name: str

    async def read(self) -> Reading:
        """A fresh reading of the capacity; any exception means that there is none."""
        ...

    async def access(self, username: str) -> Access:
        """What this user may use here now. Answered from a reading of all users' rights that is some minutes old."""
        ...

    async def estimate(self, launch: Launch, username: str) -> datetime | None:
        """When the scheduler expects to start such a session, if it were asked for now; None if it does not tell."""
        ...

    async def strays(self, hub: str, known: Collection[str]) -> list[str]:
        """End what the hub named `hub` began here and has no record of: `known` are the marks on record, to be looked
        at only after what is here has been listed.

        Returns what was ended, in words for the log. Raises when the target does not answer.
        """
        ...

    def silent_for(self) -> float | None:
        """Seconds since the target stopped to answer about sessions; None while it answers or nobody has asked."""
        ...

    def child_class(self) -> type[Spawner]:
        """The spawner underneath. Imports it, so that a site needs only the packages of its own targets."""
        ...

    def prepare(self, child: Any, launch: Launch | None) -> None:
        """Turn a launch into the child's traits; None when the child is rebuilt for a session that already exists."""
        ...


def set_traits(child: Spawner, traits: dict[str, Any], where: str) -> None:
    """Set traits named in the site file. Raises StartFailed for one that this spawner does not have."""
    for name, value in traits.items():
        if not child.has_trait(name):
            what = f"The site file sets `{name}` in {where}, which {type(child).__name__} does not have."
            raise StartFailed(what, "It is a mistake of the site.", "Tell the site's support.", reason="site_error")
        setattr(child, name, value)
