"""After a restart of the hub: a session on record is looked for, and JupyterHub sees a start until it answers.

JupyterHub checks each session of before with `get_url`, and knows no progress and no cancel meanwhile (its DELETE then
answers 500). A job may wait in its queue for hours, so for that time the session is given the marks of a start that is
under way: its progress can be followed and DELETE ends it, as with any other start.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jupyterhub.app import JupyterHub

from .diagnose import StartFailed
from .events import EventLog
from .start import until_answering
from .targets.base import SessionSpawner
from .within import within

if TYPE_CHECKING:
    from .spawner import HybridSpawner

GIVEN_UP = 5  # seconds in which JupyterHub looks once more for a session that is not wanted or gone


async def adopt(spawner: HybridSpawner, child: SessionSpawner) -> str | None:
    """The session's address once its server answers; None if there is none to be had, or it was cancelled.

    Raises StartFailed when the session is proved to have ended.
    """
    if spawner.events is None:
        child.progress_log = spawner.events = EventLog()
    shown: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    finding = asyncio.ensure_future(_find(spawner, child))
    shown.add_done_callback(lambda end: finding.cancel() if end.cancelled() else None)
    spawner._spawn_future, spawner._spawn_pending, spawner._check_pending = shown, True, False
    settling: asyncio.Future[None] | None = None
    try:
        url = await finding
        if url is None and await spawner.poll() is not None:
            spawner.http_timeout = GIVEN_UP  # there is none; JupyterHub need not look for long
        spawner._check_pending = True
        settling = asyncio.ensure_future(_settle(spawner, shown))
        settling.add_done_callback(lambda task: task.cancelled() or task.exception())
        return url
    except asyncio.CancelledError:
        if not shown.cancelled():
            raise
        spawner._spawn_future = None  # as JupyterHub itself does with a start that was cancelled
        spawner.http_timeout = GIVEN_UP
        return None
    except StartFailed as failure:
        spawner.http_timeout = GIVEN_UP
        spawner.failed_to_start(failure, shown)
        raise
    finally:
        if settling is None:
            spawner._spawn_pending = False
        if spawner.events is not None:
            spawner.events.close()


async def _find(spawner: HybridSpawner, child: SessionSpawner) -> str | None:
    url = await within(child.current_url(), spawner.start_timeout)
    if url is None:
        return None
    await until_answering(child, url, spawner.address(url), spawner.answer_timeout)
    return spawner.address(url)


async def _settle(spawner: HybridSpawner, shown: asyncio.Future[None]) -> None:
    """End the start that JupyterHub sees when its own check of the address is over, and the proxy knows the address.

    JupyterHub tells its proxy only once all sessions of before have been found, which a queued one delays for hours.
    """
    try:
        while spawner._check_pending:
            await asyncio.sleep(0.1)
        if spawner.server is not None and JupyterHub.initialized():
            await JupyterHub.instance().proxy.add_user(spawner.user, spawner.name)
    except Exception as error:  # the proxy may be away; JupyterHub looks at all routes every five minutes
        spawner.log.warning("Cannot route to %s yet: %s", spawner._log_name, error)
    finally:
        spawner._spawn_pending = False
    if not shown.done():
        shown.set_result(None)
    if spawner._spawn_future is shown:
        spawner._spawn_future = None
