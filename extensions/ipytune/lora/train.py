"""The training process: `python -m ipytune.lora.train RUN_DIR`.

Reads RUN_DIR/config.yaml, trains (see `ipytune.lora.loop`), and writes all else in RUN_DIR (`ipytune.runs.directory`).

- Data is read and validated before torch is imported: a bad line costs a second, not a model load.
- SIGTERM, SIGINT and a `stop` file end the run after the current step: checkpoint, adapter, report.
- With checkpoints present it continues the newest whole one.
- Under torchrun all processes train, and the first one (RANK 0) writes.

Exit status: 0 when the run completed or was stopped, 1 when it failed (status.json says why), 2 when there is no run.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from ipytune import openmp
from ipytune.data.findings import DatasetError
from ipytune.data.template import TemplateError
from ipytune.data.validate import load
from ipytune.lora.config import ConfigError, RunConfig
from ipytune.models import ModelNotFound
from ipytune.runs.directory import RunDirectory
from ipytune.runs.launch.base import stop_reason
from ipytune.runs.process import identify
from ipytune.runs.recorder import Recorder
from ipytune.runs.status import Phase
from ipytune.runs.track import tracking

# Errors whose message was written for the user; of others the type belongs to the message.
TOLD = (ConfigError, DatasetError, FloatingPointError, ModelNotFound, RuntimeError, TemplateError)


class Interrupt:
    """Notes that someone wants the run to end; the loop looks after each step."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._signal: str | None = None

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name

    @property
    def reason(self) -> str | None:
        """`SIGTERM`, `SIGINT`, `walltime` or `stop`; None while the run may go on."""
        return self._signal or stop_reason(self._directory)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m ipytune.lora.train RUN_DIR", file=sys.stderr)
        return 2
    directory = RunDirectory(arguments[0])
    if not directory.exists:
        print(f"{directory.path} holds no run (no config.yaml). Make one with `ipytune train`.", file=sys.stderr)
        return 2
    first = os.environ.get("RANK", "0") == "0"
    if first:
        directory.write_process(identify(os.getpid()))
    recorder, interrupt = Recorder(directory, writes=first), Interrupt(directory)
    interrupt.listen()
    try:
        run(directory, recorder, interrupt)
    except Exception as error:  # the edge of the process: whatever it is, the run directory must say so
        traceback.print_exc()
        recorder.fail(str(error) if isinstance(error, TOLD) else f"{type(error).__name__}: {error}")
        return 1
    return 0


def run(directory: RunDirectory, recorder: Recorder, interrupt: Interrupt) -> None:
    config = RunConfig.from_yaml(directory.config).pinned()
    if config.track:
        recorder.listener = tracking(config, directory, lambda text: recorder.event("warning", text=text))
    recorder.phase(Phase.LOADING_DATASET)
    dataset = load(config)

    recorder.phase(Phase.LOADING_MODEL)
    openmp.spin_briefly()
    from ipytune.lora.loop import train  # imports torch: seconds
    from ipytune.lora.parallel import Group

    with Group() as group:
        train(config, dataset, directory, recorder, lambda: interrupt.reason, group)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
