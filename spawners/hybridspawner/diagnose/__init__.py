"""Evidence -> what happened, why, what to do: pure functions from schedulers' words, pods and logs to StartFailed."""

from .failure import StartFailed

__all__ = ["StartFailed"]
