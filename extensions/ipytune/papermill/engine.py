"""papermill's engine `hub`: the notebook's cells run in a session that is started for them through a hub, and ended.

    papermill in.ipynb out.ipynb --engine hub -p profile gpu-1

It promises that the session is stopped however the run ends: well, with an error, by Ctrl-C, by SIGTERM or SIGHUP; and
by its lease if this process is killed outright. The output file is papermill's, saved after each cell and within long
ones. Exit codes are papermill's: 0, 1 for a cell that failed or a session that could not be had, 138 for a kernel that
died; 143 (128 + 15) after SIGTERM, 129 after SIGHUP.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any

from papermill.log import logger

from ipytune.papermill.cells import Cells, CellsEngine, Output, Terminated
from ipytune.papermill.errors import SettingsError
from ipytune.papermill.hub import Hub
from ipytune.papermill.kernel import SessionKernel
from ipytune.papermill.session import Session
from ipytune.papermill.settings import KEYWORDS, Settings, gather
from ipytune.papermill.terminal import Terminal

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class HubEngine(CellsEngine):
    """See the module, and `settings` for how it is told what to use."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Output,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        cells: dict[str, Any] | None = None,
        input_path: str | None = None,
        **keywords: Any,
    ) -> None:
        say = Terminal().say
        options = {
            **(cells or {}),
            "log": logger,
            "log_output": log_output,
            "stdout_file": stdout_file,
            "stderr_file": stderr_file,
            "startup_timeout": start_timeout,
            "timeout": execution_timeout,
        }
        logging.getLogger("httpx").setLevel(logging.WARNING)  # papermill's log level would show every request
        with _ended_by_signals():
            unknown = sorted(set(keywords) - set(KEYWORDS))
            if unknown:
                raise SettingsError(
                    f"The engine hub knows no {', '.join(unknown)}.", remedy=f"It takes {', '.join(KEYWORDS)}."
                )
            settings = gather(keywords, nb_man.nb.metadata.papermill.get("parameters") or {}, os.environ)
            with (
                closing(Hub(settings.hub, settings.token)) as hub,
                _Patient(Session(hub, settings, str(input_path or ""), say), say) as session,
            ):
                session.start()
                _run(nb_man, session, settings, kernel_name, options, say)


def _run(
    nb_man: Output,
    session: Session,
    settings: Settings,
    kernel_name: str,
    options: dict[str, Any],
    say: Any,
) -> None:
    with closing(SessionKernel(settings.hub, session.path, settings.token, session.ended, say)) as kernel:
        session.on_end = kernel.over
        kernel.start(kernel_name, settings.cwd, options["startup_timeout"])
        client = Cells(nb_man, km=kernel, kernel_name=kernel_name, **options)
        try:
            client.execute()
        finally:
            if client.kc is not None:
                client.kc.stop_channels()


class _Patient:
    """A session whose stopping Ctrl-C or SIGTERM does not cut short at the first time."""

    def __init__(self, session: Session, say: Any) -> None:
        self._session, self._say = session, say

    def __enter__(self) -> Session:
        return self._session.__enter__()

    def __exit__(self, *error: Any) -> None:
        with _held_signals(self._say):
            self._session.__exit__(*error)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP become exceptions, so that what is open is closed. In the main thread only: Python's rule."""

    def end(number: int, frame: FrameType | None) -> None:
        for other in _ENDING:
            signal.signal(other, signal.SIG_IGN)  # the end is on its way; a second one must not cut it short
        raise Terminated(number)

    with _handlers(dict.fromkeys(_ENDING, end)):
        yield


@contextmanager
def _held_signals(say: Any) -> Iterator[None]:
    """The first signal only says what goes on; the second one ends it."""
    seen = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise Terminated(number)
        seen = True
        say("Stopping the session; once more to leave now, then its lease ends it")

    with _handlers(dict.fromkeys((signal.SIGINT, *_ENDING), hold)):
        yield


@contextmanager
def _handlers(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
