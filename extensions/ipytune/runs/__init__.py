"""Fine-tuning runs: the directory that records one, and the handle that starts, follows and stops it."""

from ipytune.runs.process import Run, RunFailed
from ipytune.runs.status import Phase, Status

__all__ = ["Phase", "Run", "RunFailed", "Status"]
