"""The state of a set, from what its worker said last and what is known of the worker's job. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ipytune.batch.directory import SetStatus, State, Submission


@dataclass(frozen=True)
class Evidence:
    """What is known of the job that runs a set, or will.

    alive: not proved ended. words: why it waits, how it ended, or why nothing is known. ended: what such an end means.
    """

    alive: bool
    words: str = ""
    ended: State = State.FAILED


@dataclass(frozen=True)
class Judged:
    state: State
    words: str = ""
    """Why it waits, or its error's one line."""


def spoken(status: SetStatus | None, submission: Submission | None) -> SetStatus | None:
    """What was said in this submission; what an earlier one left behind says nothing of it."""
    return status if status is not None and submission is not None and status.submission == submission.mark else None


def judge(status: SetStatus | None, submission: Submission | None, evidence: Evidence | None) -> Judged:
    """A last word of the worker stands. Without one, a job that is gone took its set with it.

    evidence: None when it was not asked for: then the set counts as alive.
    """
    said = spoken(status, submission)
    if said is not None and said.state.final:
        return Judged(said.state, said.error or "")
    if submission is None:
        return Judged(State.FAILED, "was never submitted")
    if evidence is None or evidence.alive:
        state = State.QUEUED if said is None else State.RUNNING
        return Judged(state, evidence.words if evidence else "")
    if submission.cancelled:
        return Judged(State.CANCELLED)
    before = "" if said is not None else " before it began"
    return Judged(evidence.ended, f"its job {evidence.words}{before}")
