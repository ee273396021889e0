"""The life of one session, as pure data: states, what is persisted, and what proves an end.

SUBMITTING -> QUEUED -> STARTING -> RUNNING -> GONE, with UNKNOWN beside the middle three while the scheduler does not
answer. The one rule everything rests on: only a proof leads to GONE. An error, a timeout or silence never does, so an
allocation cannot be forgotten while it may still exist.
"""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from enum import Enum
from typing import Any


class State(str, Enum):
    SUBMITTING = "submitting"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    UNKNOWN = "unknown"
    GONE = "gone"


_NEXT = {
    State.SUBMITTING: {State.QUEUED, State.STARTING, State.RUNNING, State.UNKNOWN, State.GONE},
    State.QUEUED: {State.STARTING, State.RUNNING, State.UNKNOWN, State.GONE},
    State.STARTING: {State.QUEUED, State.RUNNING, State.UNKNOWN, State.GONE},  # QUEUED: the scheduler requeued it
    State.RUNNING: {State.QUEUED, State.STARTING, State.UNKNOWN, State.GONE},
    State.UNKNOWN: {State.QUEUED, State.STARTING, State.RUNNING, State.GONE},
    State.GONE: set(),
}


@dataclass(frozen=True)
class Job:
    """One submitted job.

    `mark` is unique and written before the submit, so that a lost id can be found again; `marked_at` (seconds since
    1970) tells until when a submit may still be on its way.
    """

    mark: str
    state: State = State.SUBMITTING
    job_id: str = ""
    host: str = ""
    port: int = 0
    log: str = ""
    exit_code: int | None = None
    marked_at: float = 0.0

    def to(self, state: State, **changes: Any) -> Job:
        """This job in `state`; ValueError for a step that the life cycle does not have."""
        if state is not self.state and state not in _NEXT[self.state]:
            raise ValueError(f"a session cannot go from {self.state.value} to {state.value}")
        return dataclasses.replace(self, state=state, **changes)

    def to_json(self) -> dict[str, Any]:
        """For the hub's database: no secrets in it."""
        return {**dataclasses.asdict(self), "state": self.state.value}

    @classmethod
    def from_json(cls, data: Any) -> Job | None:
        """The job that to_json wrote; None for anything else, since old state must never stop a hub."""
        try:
            known = {field.name for field in dataclasses.fields(cls)}
            job = cls(**{k: v for k, v in dict(data).items() if k in known})
            return dataclasses.replace(job, state=State(job.state))
        except (TypeError, ValueError):
            return None


def new_mark(hub: str) -> str:
    """A mark that no other session has: 64 random bits after the hub's name (`hub_name`), as people recognise it."""
    return f"{hub}-{secrets.token_hex(8)}"


def new_hub_name() -> str:
    """What tells this hub's jobs and pods from those of other hubs on the same cluster; kept in its state directory."""
    return f"jupyterhub-{secrets.token_hex(4)}"


def mark_of(state: Any) -> str:
    """The mark in a child's stored state, whatever its kind; "" if there is none."""
    if not isinstance(state, dict):
        return ""
    job = state.get("job")
    found = state.get("mark") or (job.get("mark") if isinstance(job, dict) else "")
    return found if isinstance(found, str) else ""
