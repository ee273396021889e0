"""Who runs the sets of a submission, and what every such one promises: a Slurm array, Kubernetes Jobs, this session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ipytune.batch.directory import SetStatus, Submission
from ipytune.batch.states import Evidence

Ask = Callable[[int, SetStatus | None], Evidence]
"""What is known of the job of a set, given what its worker said in this submission."""


class Jobs(Protocol):
    def plan(self, submission: Submission) -> Submission:
        """With what can be known of its jobs before they are: written down first, so that nothing is lost."""

    def preview(self, submission: Submission) -> str:
        """The script or manifests, as text."""

    def check(self) -> None:
        """Raises LaunchError for a batch that could not run there."""

    def start(self, submission: Submission) -> Submission:
        """Has its jobs begin or wait, and returns it with what was answered. Raises LaunchError when it was refused,
        leaving nothing behind."""

    def ask(self, submission: Submission) -> Ask:
        """One question to the scheduler, for all sets. What cannot be known counts as alive."""

    def end(self, submission: Submission) -> None:
        """Has its jobs end; returns at once. Raises LaunchError when that is refused."""

    def describe(self, submission: Submission) -> str:
        """`Slurm job 12`, `3 Kubernetes Jobs`, `2 processes`."""
