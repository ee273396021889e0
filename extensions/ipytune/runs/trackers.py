"""TensorBoard and MLflow as trackers (`ipytune.runs.track`). Their packages are imported when one is made.

TensorBoard by tensorboardX: it writes TensorBoard's files with three small dependencies, where torch's own writer needs
the whole viewer. MLflow by mlflow-skinny: the client without its server.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from ipytune.lora.config import RunConfig
from ipytune.runs.directory import RunDirectory, replace_text
from ipytune.runs.settings import flattened
from ipytune.runs.status import Phase

KEPT = 100_000  # metrics that MLflow keeps while its server is away; the oldest go first
BATCH = 1000  # MLflow's limit of metrics in one request
PARAMETERS = 100  # and of parameters
PARAMETER_LENGTH = 500  # the shortest limit among its stores
EXPERIMENT = "ipytune"


class TensorBoard:
    """Writes RUN/tensorboard/, for `tensorboard --logdir` on the run or on the folder of runs."""

    name = "TensorBoard"

    def __init__(self, directory: RunDirectory) -> None:
        import tensorboardX

        self._module = tensorboardX
        self._folder = directory.path / "tensorboard"
        self._writer: Any = None

    def start(self, config: RunConfig, resumed_at: int | None) -> None:
        # A run that goes on hides what was written after its checkpoint: those steps are done again. The number keeps
        # two files of one second apart.
        before = len(list(self._folder.iterdir())) if self._folder.is_dir() else 0
        purge = (resumed_at or 0) + 1 if before else None
        self._writer = self._module.SummaryWriter(str(self._folder), purge_step=purge, filename_suffix=f".{before:03}")
        if not before:
            self._writer.add_text("config", "\n".join(f"    {line}" for line in config.as_yaml().splitlines()))

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self._writer.flush()

    def finish(self, phase: Phase) -> None:
        self._writer.close()


class MLflow:
    """A run at MLFLOW_TRACKING_URI, or in a database `mlflow.db` beside the run directory when that is not set.

    MLFLOW_EXPERIMENT_NAME names the experiment (default: ipytune); user, password or token are read by MLflow from its
    own variables. RUN/mlflow.json holds the run's id there, so that a continued run goes on in it.
    """

    name = "MLflow"

    def __init__(self, directory: RunDirectory) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nobody asked to tell MLflow's makers
        import mlflow

        self._module: Any = mlflow
        self._directory = directory
        self._memory = directory.path / "mlflow.json"
        self._client: Any = None
        self._run_id = ""
        self._kept: deque[tuple[str, float, int, int]] = deque(maxlen=KEPT)  # name, value, ms since 1970, step
        self._sent: dict[str, int] = {}  # metric -> last step that is there already

    def start(self, config: RunConfig, resumed_at: int | None) -> None:
        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self._directory.path.parent / 'mlflow.db'}"
        self._client = self._module.MlflowClient(tracking_uri=address)
        self._run_id = self._known() or self._create(config)

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.time_ns() // 1_000_000
        for name, value in metrics.items():
            if step > self._sent.get(name, -1):
                self._kept.append((name, value, now, step))

    def flush(self) -> None:
        metric = self._module.entities.Metric
        while self._kept:
            batch = [self._kept[at] for at in range(min(BATCH, len(self._kept)))]
            self._client.log_batch(self._run_id, metrics=[metric(*kept) for kept in batch], synchronous=True)
            for name, _, _, step in batch:
                self._kept.popleft()
                self._sent[name] = max(step, self._sent.get(name, -1))

    def finish(self, phase: Phase) -> None:
        self.flush()
        ended = {Phase.COMPLETED: "FINISHED", Phase.STOPPED: "KILLED"}
        self._client.set_terminated(self._run_id, ended.get(phase, "FAILED"))

    def _known(self) -> str | None:
        """The id of the run that this directory has there already, marked as running; None when it has none, or when
        it was deleted there."""
        try:
            run_id = str(json.loads(self._memory.read_text(encoding="utf-8"))["run_id"])
            run = self._client.get_run(run_id)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        except self._module.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise  # the server is away: try again later
        if run.info.lifecycle_stage != "active":
            return None
        self._client.update_run(run_id, status="RUNNING")
        for name in run.data.metrics:
            history = self._client.get_metric_history(run_id, name)
            self._sent[name] = max((metric.step for metric in history), default=-1)
        return run_id

    def _create(self, config: RunConfig) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        run = self._client.create_run(self._experiment(name), run_name=self._directory.path.name)
        run_id = str(run.info.run_id)
        replace_text(self._memory, json.dumps({"run_id": run_id}))
        settings = [
            self._module.entities.Param(setting, str(value)[:PARAMETER_LENGTH])
            for setting, value in flattened(config).items()
            if value is not None
        ]
        for first in range(0, len(settings), PARAMETERS):
            self._client.log_batch(run_id, params=settings[first : first + PARAMETERS], synchronous=True)
        return run_id

    def _experiment(self, name: str) -> str:
        if (found := self._client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except self._module.MlflowException as error:
            found = self._client.get_experiment_by_name(name)  # another run may have made it meanwhile
            if found is None:
                raise error
            return str(found.experiment_id)
