"""What a run says about itself: `status.json`, replaced as a whole at every change.

Field names follow Kubeflow's trainerStatus where it has one (progressPercentage, estimatedRemainingSeconds).
"""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field


class Phase(str, Enum):
    IDLE = "idle"
    LOADING_MODEL = "loading_model"
    LOADING_DATASET = "loading_dataset"
    CONFIGURING = "configuring"
    TRAINING = "training"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    ERROR = "error"
    STOPPED = "stopped"

    @property
    def final(self) -> bool:
        return self in {Phase.COMPLETED, Phase.ERROR, Phase.STOPPED}

    def __str__(self) -> str:
        return self.value


class Status(BaseModel):
    """One reading. Numbers are None until they are known."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_enum_values=False)

    phase: Phase = Phase.IDLE
    step: int = 0
    total_steps: int | None = None
    progressPercentage: float = 0.0
    estimatedRemainingSeconds: float | None = None
    tokens: int = 0
    """Tokens that went through the model so far: prompts and answers, no padding."""
    tokens_per_second: float | None = None
    loss: float | None = None
    """Mean over the answer tokens of the last optimiser step, in nats."""
    learning_rate: float | None = None
    eval_loss: float | None = None
    memory_bytes: int | None = None
    """Peak so far: of the GPU where one is used, else of the process; over all processes of a continued run."""
    pid: int | None = None
    host: str | None = None
    error: str | None = None
    ended_by: str | None = None
    """What ended this process: `steps`, `max_minutes`, `patience`, `stop`, or a signal by name (`SIGTERM`)."""
    updated_at: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))
