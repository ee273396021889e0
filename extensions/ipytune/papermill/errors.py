"""What can go wrong between a run and its session, one type per thing a caller can act on.

Each says what happened, why, and what to do about it. papermill's command line, which is click's, shows these as one
message and exits with 1; a program that calls papermill catches them as papermill's own exceptions. None holds a token.
"""

from __future__ import annotations

import click
from papermill.exceptions import PapermillException


class EngineError(click.ClickException, PapermillException):
    """Base of all of them. what: one sentence, what failed. why: the cause as far as known. remedy: what to do."""

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        super().__init__(" ".join(part for part in (what, why, remedy) if part))
        self.what, self.why, self.remedy = what, why, remedy


class SettingsError(EngineError):
    """Something that the engine must be told is missing or cannot be used."""


class RequestRefused(EngineError):
    """The hub refuses this request or this token: the same again will not do."""


class StartFailed(EngineError):
    """The session did not start; the hub's words say why."""


class HubSilent(EngineError):
    """The hub did not answer for longer than our patience."""


class SessionEnded(EngineError):
    """The session ended while cells ran. What had finished is in the output file."""


class KernelUnclear(EngineError):
    """The connection lost the end of a cell, and the kernel cannot tell how it went."""
