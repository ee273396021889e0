"""The training panel: start a run, watch it, stop it. A view of a run directory, which is what holds the run.

    panel = TrainingPanel(config, "runs/first")
    panel                  # shows it; its buttons are panel.start() and panel.stop()
    report = panel.run()   # starts the run unless it was started already, and waits for its end

The panel holds nothing that the directory does not: opened again on it, after a restart of the kernel or from another
notebook, it shows the whole run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import traitlets

from ipytune.lora.config import RunConfig
from ipytune.runs import Phase, Run, RunFailed
from ipytune.runs.launch import Launcher
from ipytune.series import packed
from ipytune.widgets import picture
from ipytune.widgets.follow import Follower, Snapshot, line, phase_words, shown_facts
from ipytune.widgets.shown import Panel, script

POLL_SECONDS = 0.22  # 4-5 pictures a second: smooth to the eye, and far below the message limit of Jupyter's server
_LINE_SECONDS = 15.0  # between printed lines while a cell waits


class TrainingPanel(Panel):
    """See the module.

    config: a RunConfig to start with, or a Run to follow.   run_dir: where the run is, or will be; not for a Run.
    launcher: who runs it (`ipytune.runs.launch`); None: a process of this session.
    """

    _esm = script("training.js")
    redrawn_at_end = True

    title = traitlets.Unicode().tag(sync=True)
    phase = traitlets.Unicode(str(Phase.IDLE)).tag(sync=True)
    phase_text = traitlets.Unicode(phase_words(Phase.IDLE)).tag(sync=True)
    progress = traitlets.Float(0.0).tag(sync=True)
    facts: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    points = traitlets.Bytes(b"").tag(sync=True)
    evals: traitlets.List[list[float]] = traitlets.List().tag(sync=True)
    total_steps = traitlets.Int(0).tag(sync=True)
    samples: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    start_label = traitlets.Unicode("Start").tag(sync=True)
    can_start = traitlets.Bool(True).tag(sync=True)
    can_stop = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        config: RunConfig | Run | None = None,
        run_dir: Path | str | None = None,
        launcher: Launcher | None = None,
    ) -> None:
        super().__init__()
        self._launcher = launcher
        self._lock = threading.RLock()
        self._follower: Follower | None = None
        self._snapshot: Snapshot | None = None
        self._asked_to_stop = False
        if isinstance(config, Run):
            self._config: RunConfig | None = None
            self._path = config.path
            self._take(config)
        else:
            if run_dir is None:
                raise ValueError("A training panel needs the run's directory: TrainingPanel(config, run_dir).")
            self._config = config
            self._path = Path(run_dir)
            self._adopt_existing()
        self.title = self._path.name
        self._look()

    @property
    def training(self) -> Run | None:
        """The run, once there is one."""
        return self._follower.run if self._follower is not None else None

    def start(self) -> None:
        """Start the run, or continue one that stopped or failed. Returns at once.

        Raises ValueError when there is nothing to start with, or when the run is over or still going on.
        """
        with self._lock:
            if self._follower is None:
                if self._config is None:
                    raise ValueError(
                        f"{self._path} holds no run. Give a configuration: TrainingPanel(config, run_dir)."
                    )
                run = Run.start(self._config, self._path, launcher=self._launcher)
            else:
                phase = self._follower.run.status().phase
                if phase not in (Phase.STOPPED, Phase.ERROR):
                    raise ValueError(f"This run is {phase_words(phase)}; there is nothing to start.")
                config = self._config or self._follower.run.config
                run = Run.start(config, self._path, resume=True, launcher=self._launcher)
            self._asked_to_stop = False
            self.problem = {}
            self._adopt(run)
        self._look()
        self._follow_in_background()

    def stop(self) -> None:
        """Ask the run to stop after the step it is at. What it has learned is kept: checkpoint and adapter."""
        with self._lock:
            if self._follower is None:
                return
            self._asked_to_stop = True
            self._follower.run.stop()
        self._look()

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Block until the run ends, showing its progress; returns its report.

        Prints a line now and then, for logs and for notebooks run without a browser. Raises RunFailed when the run
        fails, TimeoutError after `timeout` seconds (the run goes on), ValueError when nothing was started. An
        interrupt stops the run, keeps what it learned, and is raised again.
        """
        run = self.training
        if run is None:
            raise ValueError("Nothing was started: press Start, or call panel.start() or panel.run().")
        try:
            with self.watched_here():
                self._wait(run, timeout)
            if run.status().phase is not Phase.ERROR:
                return run.wait(timeout=60)
            problem = self.problem
            raise RunFailed("Fine-tuning failed", problem.get("why", ""), problem.get("log", ""))
        finally:
            if not run.status().phase.final:
                self._follow_in_background()

    def run(self, timeout: float | None = None) -> dict[str, Any]:
        """Start unless the run was started already, wait, and return the report. A completed run returns at once."""
        run = self.training
        if run is None or run.status().phase in (Phase.STOPPED, Phase.ERROR):
            self.start()
        return self.wait(timeout)

    def actions(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {"start": lambda _: self.start(), "stop": lambda _: self.stop()}

    def static_html(self) -> str:
        shot = self._snapshot
        curve = picture.loss_svg(shot.points, shot.evals) if shot is not None else ""
        problem = picture.problem_box(**self.problem) if self.problem else ""
        said = [(f"step {s['step']}: {s['prompt']}", s["answer"]) for s in self.samples]
        parts = (curve, picture.facts_table(self.facts), picture.samples(said), problem)
        return picture.frame(f"Fine-tuning · {self.title}", self.phase_text, *parts)

    def static_text(self) -> str:
        words = "; ".join(f"{label}: {value}" for label, value in self.facts)
        return f"TrainingPanel({self.title}: {self.phase_text}{'; ' if words else ''}{words})"

    def _adopt_existing(self) -> None:
        """Show the run that the directory already holds, if it is the one that the configuration describes."""
        try:
            run = Run.open(self._path)
        except FileNotFoundError:
            return
        if self._config is not None and (changed := run.config.differences(self._config.pinned())):
            listed = ", ".join(f"{name}: {was!r} there, {now!r} now" for name, (was, now) in changed.items())
            raise ValueError(
                f"{self._path} holds a run with other settings ({listed}). Choose another directory for the new run, "
                f"or remove this one."
            )
        self._take(run)

    def _take(self, run: Run) -> None:
        """Show a run that is there, and follow it while it goes on."""
        self._adopt(run)
        if not run.status().phase.final:
            self._follow_in_background()

    def _adopt(self, run: Run) -> None:
        self._follower = Follower(run)

    def _follow_in_background(self) -> None:
        self.watch(lambda: None if self._look() else POLL_SECONDS)

    def _wait(self, run: Run, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        printed: tuple[Phase | None, float] = (None, 0.0)
        interrupted = False
        while True:
            try:
                final = self._look()
                shot = self._snapshot
                now = time.monotonic()
                if shot is not None and (shot.status.phase is not printed[0] or now - printed[1] > _LINE_SECONDS):
                    print(line(shot.status), flush=True)
                    printed = (shot.status.phase, now)
                if final:
                    break
                if deadline is not None and now > deadline:
                    raise TimeoutError(
                        f"The run in {self._path} is still going on after {timeout:g} s. Wait again, or stop it."
                    )
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                self.stop()
                print("Stopping after this step; what was learned is kept.", flush=True)
        if interrupted:
            raise KeyboardInterrupt

    def _look(self) -> bool:
        """Read the run and show it; whether it has ended."""
        with self._lock:
            if self._follower is None:
                self.publish(can_start=self._config is not None, can_stop=False)
                return False
            shot = self._snapshot = self._follower.look()
        status = shot.status
        over = status.phase.final
        stopping = self._asked_to_stop and not over
        self.publish(
            phase="stopping" if stopping else str(status.phase),
            phase_text="stopping, keeping what was learned" if stopping else _phase_text(status.phase),
            progress=100.0 if status.phase is Phase.COMPLETED else status.progressPercentage,
            facts=[list(pair) for pair in shown_facts(status)],
            points=packed(shot.points),
            evals=[list(pair) for pair in shot.evals],
            total_steps=status.total_steps or 0,
            samples=[vars(sample) for sample in shot.samples],
            start_label="Continue" if status.phase in (Phase.STOPPED, Phase.ERROR) else "Start",
            can_start=status.phase in (Phase.STOPPED, Phase.ERROR),
            can_stop=not over and not stopping,
            problem=shot.problem.as_dict() if shot.problem is not None else {},
        )
        return over


def _phase_text(phase: Phase) -> str:
    return "starting" if phase is Phase.IDLE else phase_words(phase)
