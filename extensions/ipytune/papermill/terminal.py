"""What a run tells whoever watches it: one plain line an event, to the standard error, beside papermill's own bar.

The output may be the notebook itself (`papermill in.ipynb -`), so nothing goes there. What a hub says is shown on one
line and cannot steer the terminal.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

from tqdm import tqdm

from ipytune.endpoints.untrusted import one_line

_LONGEST = 400


class Terminal:
    """May be told from any thread. The same line twice in a row is shown once."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._last = ""

    def say(self, text: str) -> None:
        line = one_line(text, _LONGEST)
        with self._lock:
            if not line or line == self._last:
                return
            self._last = line
            stamped = f"{time.strftime('%H:%M:%S')}  {line}"
            try:
                tqdm.write(stamped, file=self._stream or sys.stderr)  # a bar steps aside for it
            except (OSError, ValueError):
                pass  # nobody reads any more: the terminal was closed, the run goes on to its end
