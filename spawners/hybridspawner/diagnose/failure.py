"""How a start failed, in the four parts that a user is told."""

from __future__ import annotations


class StartFailed(Exception):
    """A session could not be started, or ended while it started.

    `what` happened, `why`, what to do (`remedy`), and the `evidence`: the scheduler's words or the tail of a log.
    `reason` is a short label for metrics.
    """

    def __init__(self, what: str, why: str, remedy: str, evidence: str = "", reason: str = "start_failed") -> None:
        super().__init__(f"{what} {why} {remedy}")
        self.what, self.why, self.remedy, self.evidence, self.reason = what, why, remedy, evidence, reason
