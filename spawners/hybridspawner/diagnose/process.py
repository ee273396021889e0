"""Sessions whose process ended or whose server does not answer, whatever the target."""

from __future__ import annotations

from ..duration import spoken_duration
from .failure import StartFailed
from .log import SEE_LOG, clue, without_secrets


def ended_process(exit_code: int, log: str) -> StartFailed:
    why, remedy = clue(log) or (f"Its exit code was {exit_code}.", SEE_LOG)
    return StartFailed("The session's process ended before it was usable.", why, remedy, without_secrets(log), "exited")


def not_reachable(url: str, waited: float, log: str) -> StartFailed:
    what = f"The session runs, but its server did not answer within {spoken_duration(waited)}."
    why, remedy = clue(log) or (f"The hub tried {url}.", "Try again, and tell the site's support.")
    return StartFailed(what, why, remedy, without_secrets(log), "not_reachable")
