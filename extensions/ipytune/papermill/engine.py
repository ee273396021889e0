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
from contextlib import closing
from typing import Any

from ipytune.papermill.cells import Cells, CellsEngine, Output
from ipytune.papermill.errors import SettingsError
from ipytune.papermill.hub import Hub
from ipytune.papermill.kernel import SessionKernel
from ipytune.papermill.session import Session
from ipytune.papermill.settings import KEYWORDS, Settings, gather
from ipytune.papermill.signals import ended_by_signals, held_signals
from ipytune.papermill.terminal import Terminal

_STOPPING = "Stopping the session; once more to leave now, then its lease ends it"


class HubEngine(CellsEngine):
    """See the module, and `settings` for how it is told what to use."""

    @classmethod
    def run_cells(
        cls, output: Output, kernel_name: str, options: dict[str, Any], input_path: str | None = None, **keywords: Any
    ) -> None:
        say = Terminal().say
        logging.getLogger("httpx").setLevel(logging.WARNING)  # papermill's log level would show every request
        with ended_by_signals():
            unknown = sorted(set(keywords) - set(KEYWORDS))
            if unknown:
                raise SettingsError(
                    f"The engine hub knows no {', '.join(unknown)}.", remedy=f"It takes {', '.join(KEYWORDS)}."
                )
            settings = gather(keywords, output.nb.metadata.papermill.get("parameters") or {}, os.environ)
            with (
                closing(Hub(settings.hub, settings.token)) as hub,
                _Patient(Session(hub, settings, str(input_path or ""), say), say) as session,
            ):
                session.start()
                _run(output, session, settings, kernel_name, options, say)


def _run(
    output: Output,
    session: Session,
    settings: Settings,
    kernel_name: str,
    options: dict[str, Any],
    say: Any,
) -> None:
    with closing(SessionKernel(settings.hub, session.path, settings.token, session.ended, say)) as kernel:
        session.on_end = kernel.over
        kernel.start(kernel_name, settings.cwd, options["startup_timeout"])
        client = Cells(output, km=kernel, kernel_name=kernel_name, **options)
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
        with held_signals(self._say, _STOPPING):
            self._session.__exit__(*error)
