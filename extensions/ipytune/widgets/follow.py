"""Follows a run directory: what a panel shows of it, read a little at a time. Knows no widget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ipytune.endpoints.format import rate, seconds
from ipytune.runs import Phase, Run, Status
from ipytune.series import Point, smoothed, thinned

_PHASES = {
    Phase.IDLE: "not started",
    Phase.LOADING_MODEL: "loading the model",
    Phase.LOADING_DATASET: "reading the data",
    Phase.CONFIGURING: "preparing",
    Phase.TRAINING: "training",
    Phase.FINALIZING: "saving the adapter",
    Phase.COMPLETED: "completed",
    Phase.ERROR: "failed",
    Phase.STOPPED: "stopped",
}


@dataclass(frozen=True)
class Problem:
    """What a panel shows in its error box; `log` is folded away."""

    what: str
    why: str = ""
    remedy: str = ""
    log: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"what": self.what, "why": self.why, "remedy": self.remedy, "log": self.log}


@dataclass(frozen=True)
class Sample:
    """What the model answered at a step."""

    step: int
    prompt: str
    answer: str


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment: its status, its curve (at most series.LIMIT points), its held-out losses."""

    status: Status
    points: tuple[Point, ...] = ()
    evals: tuple[tuple[int, float], ...] = ()
    problem: Problem | None = None
    samples: tuple[Sample, ...] = ()
    """The last answer to each question that is asked while it learns."""


class Follower:
    """Reads what is new since the last look. Not for several threads at once; its owner has the lock."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._offset = 0
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._evals: dict[int, float] = {}
        self._points: tuple[Point, ...] = ()
        self._samples: dict[str, Sample] = {}

    def look(self) -> Snapshot:
        status = self.run.status()  # before the events: then a final status comes with all of its events
        events, self._offset = self.run.events(self._offset)
        for event in events:
            self._take(event)
        problem = None
        if status.phase is Phase.ERROR:
            problem = Problem(
                what="Fine-tuning failed.",
                why=_first_paragraph(status.error or "The training process gave no reason."),
                remedy="Mend the cause, then press Continue to go on from the last checkpoint, or start a new run.",
                log=self.run.log_tail(40),
            )
        if events:
            self._points = tuple(thinned(smoothed(self._steps, self._losses)))
        evals, samples = tuple(sorted(self._evals.items())), tuple(self._samples.values())
        return Snapshot(status, self._points, evals, problem, samples)

    def _take(self, event: dict[str, Any]) -> None:
        step = event.get("step")
        if not isinstance(step, int):
            return
        if event.get("kind") == "resumed":
            # Steps after the checkpoint are done again, and recorded again.
            keep = sum(1 for earlier in self._steps if earlier <= step)
            del self._steps[keep:], self._losses[keep:]
            self._evals = {earlier: loss for earlier, loss in self._evals.items() if earlier <= step}
        elif event.get("kind") == "metric" and isinstance(event.get("loss"), (int, float)):
            self._steps.append(step)
            self._losses.append(float(event["loss"]))
        elif event.get("kind") == "evaluation" and isinstance(event.get("eval_loss"), (int, float)):
            self._evals[step] = float(event["eval_loss"])  # measured again at a step: the last one counts
        elif event.get("kind") == "sample":
            prompt = str(event.get("prompt", ""))
            self._samples[prompt] = Sample(step, prompt, str(event.get("answer", "")))


def phase_words(phase: Phase) -> str:
    return _PHASES[phase]


def shown_facts(status: Status) -> list[tuple[str, str]]:
    """(label, value) pairs in the order in which they are shown."""
    shown = [
        ("Step", f"{status.step:,} of {status.total_steps:,}" if status.total_steps else f"{status.step:,}"),
        ("Loss", _number(status.loss)),
    ]
    if status.eval_loss is not None:
        shown.append(("Held-out loss", _number(status.eval_loss)))
    shown.append(("Speed", rate(status.tokens_per_second)))
    if not status.phase.final:
        shown.append(("Time left", seconds(status.estimatedRemainingSeconds)))
    shown += [("Tokens", f"{status.tokens:,}"), ("Peak memory", memory(status.memory_bytes))]
    return shown


def line(status: Status) -> str:
    """One line of progress, for logs: what papermill and a terminal print."""
    if status.phase is not Phase.TRAINING or status.step == 0:
        return phase_words(status.phase)
    of = f"/{status.total_steps}" if status.total_steps else ""
    left = f" · {seconds(status.estimatedRemainingSeconds)} left" if status.estimatedRemainingSeconds else ""
    return f"step {status.step}{of} · loss {_number(status.loss)} · {rate(status.tokens_per_second)}{left}"


def memory(count: int | None) -> str:
    """>>> memory(1_610_612_736), memory(None)
    ('1.5 GiB', '–')
    """
    if count is None:
        return "–"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"


def _first_paragraph(text: str) -> str:
    return text.split("\n\n", 1)[0].split(" It last printed:", 1)[0].strip()
