"""The load panel: start a measurement, watch it, stop it; latency against load as it grows, a row for each step.

panel = LoadPanel(endpoint, Plan(concurrency=(1, 2, 4, 8)), "load-of-my-server")
panel                  # shows it; its buttons are panel.start() and panel.stop()
report = panel.run()   # starts the measurement unless it was started already, and waits for its end
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import traitlets

from ipytune.endpoints.format import seconds
from ipytune.endpoints.records import Endpoint
from ipytune.load.curves import curves
from ipytune.load.plan import Plan
from ipytune.load.report import LoadReport, StepResult, brief, table
from ipytune.load.run import LoadInterrupted, LoadRun, Progress
from ipytune.widgets import picture
from ipytune.widgets.shown import Panel, script

POLL_SECONDS = 0.25
_LINE_SECONDS = 15.0  # between printed lines while a cell waits
_MOST_NOTES = 12

_PHASES = {
    "idle": "not started",
    "checking": "asking the endpoint a first question",
    "connecting": "opening connections",
    "measuring": "measuring",
    "stopping": "stopping, keeping what was measured",
    "completed": "completed",
    "saturated": "completed: saturated",
    "stopped": "stopped",
    "failed": "failed",
}


class LoadPanel(Panel):
    """See the module. directory: for report and records; None writes none."""

    _esm = script("load.js")
    redrawn_at_end = True

    title = traitlets.Unicode().tag(sync=True)
    phase = traitlets.Unicode("idle").tag(sync=True)
    phase_text = traitlets.Unicode(_PHASES["idle"]).tag(sync=True)
    progress = traitlets.Float(0.0).tag(sync=True)
    facts: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    heads: traitlets.List[str] = traitlets.List().tag(sync=True)
    rows: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    charts: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    notes: traitlets.List[str] = traitlets.List().tag(sync=True)
    can_start = traitlets.Bool(True).tag(sync=True)
    can_stop = traitlets.Bool(False).tag(sync=True)

    def __init__(self, endpoint: Endpoint, plan: Plan, directory: Path | str | None = None) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._plan = plan
        self._directory = directory
        self._lock = threading.RLock()
        self._run: LoadRun | None = None
        self._stopping = False
        self._shown_steps: tuple[StepResult, ...] = ()
        self.title = f"{endpoint.name} · {endpoint.model}"
        self._look()

    @property
    def report(self) -> LoadReport | None:
        """What has been measured so far; the whole once it is over."""
        return self._run.report if self._run is not None else None

    def start(self) -> None:
        """Begin the measurement, and return. Raises ValueError while one goes on, BadRequest for a used directory."""
        with self._lock:
            if self._run is not None and not self._run.over:
                raise ValueError("The measurement is going on; stop it first.")
            self._run = LoadRun(self._endpoint, self._plan, directory=self._directory).start()
            self._stopping = False
            self.problem = {}
        self._look()
        self._follow_in_background()

    def stop(self) -> None:
        """End the step under way. What was measured is kept."""
        with self._lock:
            if self._run is None or self._run.over:
                return
            self._stopping = True
            self._run.stop()
        self._look()

    def wait(self, timeout: float | None = None) -> LoadReport:
        """Block until the measurement is over, showing it; returns the report.

        Prints a line now and then. Raises what `LoadRun.wait` raises; an interrupt stops the measurement, and is raised
        again as LoadInterrupted.
        """
        run = self._run
        if run is None:
            raise ValueError("Nothing was started: press Start, or call panel.start() or panel.run().")
        try:
            with self.watched_here():
                self._wait(run, timeout)
            return run.wait()
        finally:
            if not run.over:
                self._follow_in_background()

    def run(self, timeout: float | None = None) -> LoadReport:
        """Start unless it was started already, wait, and return the report."""
        if self._run is None:
            self.start()
        return self.wait(timeout)

    def actions(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {"start": lambda _: self.start(), "stop": lambda _: self.stop()}

    def static_html(self) -> str:
        pictures = "".join(svg for svg in curves(self._shown_steps)[:2] if svg)
        problem = picture.problem_box(**self.problem) if self.problem else ""
        parts = (picture.facts_table(self.facts), pictures, _table_html(self.heads, self.rows), _notes_html(self.notes))
        return picture.frame(f"Load · {self.title}", self.phase_text, *parts, problem)

    def static_text(self) -> str:
        rows = "".join(f"\n  {'  '.join(cells)}" for cells in self.rows)
        heads = f"\n  {'  '.join(self.heads)}" if self.rows else ""
        return f"LoadPanel({self.title}: {self.phase_text}){heads}{rows}"

    def _follow_in_background(self) -> None:
        self.watch(lambda: None if self._look() else POLL_SECONDS)

    def _wait(self, run: LoadRun, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        printed, due = -1, 0.0
        interrupted = False
        while True:
            try:
                if self._look():
                    break
                progress, now = run.progress, time.monotonic()
                if len(progress.results) != printed or now > due:
                    printed, due = len(progress.results), now + _LINE_SECONDS
                    print(_line(progress), flush=True)
                if deadline is not None and now > deadline:
                    raise TimeoutError(f"The load measurement is still going on after {timeout:g} s.")
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                self.stop()
                print("Stopping; what was measured is kept.", flush=True)
        if interrupted:
            raise LoadInterrupted(run.report)

    def _look(self) -> bool:
        """Show how it goes; whether it is over."""
        with self._lock:
            run = self._run
            if run is None:
                self.publish(can_start=True, can_stop=False)
                return False
            over = run.over
            progress, report = run.progress, run.report
            stopping = self._stopping and not over
        phase = _phase(over, stopping, progress, report, run.error)
        if over and run.error is not None:
            self.fail(run.error)
        steps = report.steps if over and report is not None else progress.results
        news: dict[str, Any] = {}
        if len(steps) != len(self._shown_steps) or over:
            self._shown_steps = steps
            heads, rows = table(steps)
            notes = report.notes() if report is not None else []
            news = {
                "heads": heads if rows else [],
                "rows": rows,
                "charts": _charts(steps),
                "notes": notes[:_MOST_NOTES],
            }
        self.publish(
            phase=phase,
            phase_text=_phase_text(phase, progress),
            progress=100.0 if over else _percent(progress),
            facts=[list(pair) for pair in _facts(progress, over, report)],
            can_start=over,
            can_stop=not over and not stopping,
            **news,
        )
        return over


def _phase(over: bool, stopping: bool, progress: Progress, report: LoadReport | None, error: Exception | None) -> str:
    if not over:
        return "stopping" if stopping else "measuring" if progress.phase == "over" else progress.phase
    if error is not None:
        return "failed"
    return report.ended if report is not None else "stopped"


def _phase_text(phase: str, progress: Progress) -> str:
    words = _PHASES[phase]
    if phase in ("connecting", "measuring"):
        return f"{words}: {progress.label}, step {progress.step} of {progress.steps}"
    return words


def _percent(progress: Progress) -> float:
    if progress.eta is None or progress.elapsed <= 0:
        return 0.0
    return 100 * progress.elapsed / (progress.elapsed + progress.eta)


def _facts(progress: Progress, over: bool, report: LoadReport | None) -> list[tuple[str, str]]:
    if over:
        if report is None:
            return []
        best = max((step.numbers.output_tokens_per_second for step in report.steps), default=0.0)
        return [
            ("Steps", str(len(report.steps))),
            ("Requests", str(report.succeeded)),
            ("Errors", str(sum(step.numbers.failed for step in report.steps))),
            ("Most tokens/s", f"{best:,.0f}"),
            ("Time", seconds(report.seconds)),
        ]
    speed = progress.chunks_per_second
    return [
        ("Sent", str(progress.sent)),
        ("Running", str(progress.running)),
        ("Done", str(progress.done)),
        ("Errors", str(progress.errors)),
        ("TTFT now", brief(progress.ttft)),
        ("Gap now", brief(progress.gap)),
        ("Chunks/s", "–" if speed is None else f"{speed:,.0f}"),
        ("Left", seconds(progress.eta)),
    ]


def _line(progress: Progress) -> str:
    return (
        f"{progress.label or progress.phase} ({progress.step}/{progress.steps}): {progress.done} done, "
        f"{progress.running} running, {progress.errors} errors, TTFT {brief(progress.ttft)}"
    )


def _charts(steps: tuple[StepResult, ...]) -> list[dict[str, Any]]:
    """What the browser draws: of each picture its lines, as [load, seconds]."""
    if not steps:
        return []
    x_name = "users at once" if steps[0].kind == "closed" else "requests/s offered"
    gap = steps[0].numbers.gap_name
    pictures = []
    for name, read in (("TTFT", lambda s: s.numbers.ttft), (gap, lambda s: s.numbers.itl)):
        lines = []
        for part in ("p50", "p90", "p99"):
            points = [[step.value, value] for step in steps if (value := getattr(read(step), part)) is not None]
            if points:
                lines.append({"name": part, "points": points})
        pictures.append({"name": name, "x": x_name, "lines": lines})
    return pictures


def _table_html(heads: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    cell = "text-align:right;padding:2px 14px 2px 0;border:0"
    head = "".join(f'<th style="{cell};font-weight:500;opacity:.7">{escape(word)}</th>' for word in heads)
    body = ""
    for cells in rows:
        told = "".join(f'<td style="{cell}">{escape(word)}</td>' for word in cells)
        body += f'<tr style="background:none">{told}</tr>'
    return f'<table style="border:0;margin-top:8px"><tr style="background:none">{head}</tr>{body}</table>'


def _notes_html(notes: list[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul style="margin:8px 0 0;padding-left:18px">{items}</ul>' if items else ""
