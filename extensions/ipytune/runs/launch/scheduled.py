"""A run that a scheduler began: what was last heard of its job, asked when the run is quiet, and how it is ended."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, Protocol, TypeVar

from ipytune.runs.directory import RunDirectory
from ipytune.runs.launch.base import LaunchError, SignsOfLife, ask_to_stop

ASK_SECONDS = 15.0  # of silence, before a question and between two; a scheduler serves all users
SETTLE_SECONDS = 30.0  # for the last word of a job that ended well to arrive over a shared file system


class JobState(Protocol):
    """What a scheduler said of a job."""

    @property
    def alive(self) -> bool:
        """Not proved ended."""

    @property
    def clean(self) -> bool:
        """Ended as it should: then the trainer said so, and its last word may still be on its way to us."""


State = TypeVar("State", bound=JobState)


class JobHandle(ABC, Generic[State]):
    """The part of `base.Handle` that no scheduler changes. silence: the state when nothing is heard of the job."""

    ending_seconds: ClassVar[float]
    """How long a job may take to be gone once it is ended by force."""
    not_gone: ClassVar[str]
    """What to tell, after the job's name, when it takes longer."""

    def __init__(self, directory: RunDirectory, silence: State) -> None:
        self._directory = directory
        self._signs = SignsOfLife(directory, ASK_SECONDS)
        self._silence = self._last = silence
        self._asked_at = float("-inf")
        self._ended_at: float | None = None

    @property
    @abstractmethod
    def _name(self) -> str:
        """Which job it is, for messages."""

    @abstractmethod
    def _asked(self) -> State:
        """One question to the scheduler; silence when it does not answer."""

    @abstractmethod
    def _end(self) -> None:
        """Has the scheduler end the job; raises LaunchError when that is refused."""

    @abstractmethod
    def withdraw(self) -> None:
        """See `base.Handle`."""

    def alive(self) -> bool:
        if self._last.alive and self._signs.question_due():
            self._ask()
        if self._last.alive:
            return True
        return self._last.clean and time.monotonic() - (self._ended_at or 0.0) < SETTLE_SECONDS

    def silent(self) -> bool:
        return self.alive() and self._last == self._silence

    def stop(self, grace: float) -> None:
        self.withdraw()
        if ask_to_stop(self._directory, self._gone, grace):
            return
        self._end()
        deadline = time.monotonic() + self.ending_seconds
        while not self._gone():
            if time.monotonic() > deadline:
                raise LaunchError(f"{self._name} {self.not_gone}")
            time.sleep(1.0)

    def _gone(self) -> bool:
        """Whether it has ended, for one who waits for that: asked every two seconds."""
        if self._last.alive and time.monotonic() - self._asked_at > 2.0:
            self._ask()
        return not self._last.alive or self._directory.read_status().phase.final

    def _ask(self) -> None:
        self._last, self._asked_at = self._asked(), time.monotonic()
        if not self._last.alive and self._ended_at is None:
            self._ended_at = time.monotonic()
