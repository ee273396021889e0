"""What all panels share: their files, their picture beside the live view, buttons that reach Python methods.

A button of the page sends {"do": NAME, ...}; NAME must be in the panel's `actions`. It may arrive in another thread
than the cells run in (JupyterLab sends it over a subshell), while a cell blocks. So an action only starts or asks for
work, and what goes wrong in it is shown in the panel: an exception in a callback would be seen by nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython.display import display

from ipytune.endpoints.untrusted import visible
from ipytune.models import ModelNotFound

_HERE = Path(__file__).parent


def script(*names: str) -> str:
    """The JavaScript of one panel, the shared parts before it: a widget's module cannot import files beside it."""
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in ("shared.js", *names))


def style() -> str:
    return (_HERE / "panel.css").read_text(encoding="utf-8")


class Panel(anywidget.AnyWidget):
    """A view over plain Python. Subclasses give `actions()`, `static_html()` and `static_text()`."""

    # Whether the picture in the saved notebook is replaced when work that a button began is over. JupyterLab then draws
    # the live view anew, too, and what was being typed in it is gone: not for panels in which users write meanwhile.
    redrawn_at_end = False

    _css = style()
    problem = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._publishing = threading.RLock()
        self._display: Any = None
        self._watching = threading.Lock()
        self._watcher: threading.Thread | None = None
        self._wanted = False
        self._in_cell = False
        # ipykernel 7.4 delivers a widget's messages to the shell from which the widget last sent; a cell that waits is
        # the main one, so Stop would wait for the cell that waits for Stop. Deliver where the browser addressed them:
        # JupyterLab's subshell. Where this hook is unknown, buttons work between cells and an interrupt always does.
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = lambda data, default: default
        self.on_msg(self._on_message)

    def actions(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        raise NotImplementedError

    def static_html(self) -> str:
        raise NotImplementedError

    def static_text(self) -> str:
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Show an error in the panel; the kind only of one whose message was not written for the user."""
        told = isinstance(error, (ValueError, RuntimeError, OSError, ModelNotFound))
        what = str(getattr(error, "what", "")) or (str(error) if told else f"{type(error).__name__}: {error}")
        self.problem = {
            "what": visible(what),
            "why": visible(str(getattr(error, "why", ""))),
            "remedy": visible(str(getattr(error, "remedy", ""))),
            "log": visible(str(getattr(error, "log_tail", ""))),
        }

    def publish(self, **traits: Any) -> None:
        """Set several traits in one message. From any thread."""
        with self._publishing, self.hold_sync():
            for name, value in traits.items():
                setattr(self, name, value)

    def watch(self, look: Callable[[], float | None]) -> None:
        """Call `look` again and again in a thread, pausing the seconds it returns, until it returns None.

        A thread and not an asyncio task: ipykernel 7 runs no task of a cell that has ended (ipykernel #1510).
        """
        with self._watching:
            self._wanted = True  # should the thread be about to end, it looks once more
            if not self._in_cell and self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, args=(look,), name="ipytune-panel", daemon=True)
                self._watcher.start()

    @contextmanager
    def watched_here(self) -> Iterator[None]:
        """Inside, the running cell looks itself: what it sends belongs to it and is saved; see settle()."""
        with self._watching:
            self._in_cell = True
            watcher = self._watcher
        if watcher is not None and watcher is not threading.current_thread():
            watcher.join()
        try:
            yield
        finally:
            self._in_cell = False
            self.settle()

    def settle(self) -> None:
        """Send the whole state and the static picture once more, from the cell that runs now.

        A notebook run without a browser keeps only what the running cell sends (nbclient), so what a thread has sent
        meanwhile is missing from the saved file.
        """
        with self._publishing:
            self.send_state()
        self._draw_again()

    def _draw_again(self) -> None:
        """Replace the static picture in the output of the cell that showed the panel."""
        if self._display is not None:
            data, metadata = self._bundle()
            self._display.update(data, metadata=metadata, raw=True)

    def _ipython_display_(self, **_: Any) -> None:
        # With an id, by which the picture is replaced.
        data, metadata = self._bundle()
        self._display = display(data, metadata=metadata, raw=True, display_id=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._bundle()

    def _bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        made = super()._repr_mimebundle_()
        data, metadata = made if made is not None else ({}, {})
        return {**data, "text/html": self.static_html(), "text/plain": self.static_text()}, metadata

    def __repr__(self) -> str:
        return self.static_text()

    def _watch(self, look: Callable[[], float | None]) -> None:
        while True:
            self._wanted = False
            try:
                pause = look()
            except Exception as error:  # a thread's exception would be seen by nobody
                self.fail(error)
                pause = None
            with self._watching:
                over = pause is None and not self._wanted
                if over or self._in_cell or self.comm is None:
                    self._watcher = None
                    break
            time.sleep(pause or 0.0)
        if self.redrawn_at_end and over and not self._in_cell and self.comm is not None:
            self._draw_again()

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        if not isinstance(content, dict):
            return
        action = self.actions().get(str(content.get("do")))
        if action is None:
            return
        try:
            action(content)
        except Exception as error:  # see the module: nobody else would see it
            self.fail(error)
