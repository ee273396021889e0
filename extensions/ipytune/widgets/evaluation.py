"""An evaluation in a notebook: how far it is, what it costs, each model's results with their intervals, failures first.

panel = EvaluationPanel("held-out.jsonl", [base, tuned], ["exact"])
panel            # Start, watch, Stop
panel.run()      # or from code: waits for the result; works without a browser
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import traitlets

from ipytune.endpoints.client import Timeouts
from ipytune.endpoints.format import seconds
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.untrusted import visible
from ipytune.evaluate import report, verdicts
from ipytune.evaluate.job import GRACE, Job
from ipytune.evaluate.plan import plan
from ipytune.evaluate.progress import Progress
from ipytune.evaluate.result import Cell, Evaluation, Row
from ipytune.evaluate.scorers import Given
from ipytune.evaluate.scorers.score import Score, clipped
from ipytune.widgets import picture
from ipytune.widgets.shown import Panel, script, style

_LOOK = 0.25  # seconds between looks at the numbers
_RARELY = 2.0  # seconds between looks at results and rows, more where finding them takes long
_ROWS = 25  # questions shown; the reports have all
_WORDS = 1200  # characters of a text that is shown
_STATES = {"asking": "asking", "judging": "the judge compares", "stopping": "stopping", "idle": "not started"}


class EvaluationPanel(Panel):
    """See the module.

    data, endpoints, scorers, settings: as `ipytune.evaluate.evaluate` takes them (concurrency, limit, directory, cache,
    max_tokens, temperature, system, repeats). Nothing is asked before `start` or `run`.
    """

    _esm = script("evaluation.js")
    redrawn_at_end = True
    _css = style() + Path(__file__).with_name("evaluation.css").read_text(encoding="utf-8")

    phase = traitlets.Unicode("idle").tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    percent = traitlets.Float(0.0).tag(sync=True)
    facts: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    scorers: traitlets.List[str] = traitlets.List().tag(sync=True)
    columns: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    rows: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    verdicts: traitlets.List[str] = traitlets.List().tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        data: Any = None,
        endpoints: Endpoint | Sequence[Endpoint] = (),
        scorers: Given | Sequence[Given] | None = None,
        *,
        timeouts: Timeouts | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._data = data
        self._endpoints = [endpoints] if isinstance(endpoints, Endpoint) else list(endpoints)
        self._asked_scorers = scorers
        self._timeouts = timeouts
        self._settings = settings
        self._job: Job | None = None
        self._evaluation: Evaluation | None = None
        self._next_results = 0.0
        names = ", ".join(endpoint.name for endpoint in self._endpoints)
        self.publish(title=names, columns=[{"name": item.name, "model": item.model} for item in self._endpoints])

    @classmethod
    def of_directory(cls, directory: Path | str) -> EvaluationPanel:
        """The panel of an evaluation that was made before, to be read. Raises FileNotFoundError."""
        evaluation = Evaluation.open(directory)
        panel = cls()
        panel._show(evaluation)
        panel.publish(phase=evaluation.state, title=", ".join(evaluation.endpoints), percent=100.0)
        return panel

    @property
    def result(self) -> Evaluation:
        """What there is so far. Raises ValueError before the start."""
        if self._job is not None:
            return self._job.evaluation()
        if self._evaluation is None:
            raise ValueError("Nothing was evaluated yet. Start it, or call run().")
        return self._evaluation

    def start(self) -> None:
        """Start, or go on after a stop: what was answered is not asked again. Returns at once."""
        self._begin()
        self.watch(self._look)

    def run(self) -> Evaluation:
        """As `start`, then wait. An interrupt stops it and keeps what came. Raises ValueError for bad data."""
        job = self._begin()
        with self.watched_here():
            try:
                self._wait()
            except KeyboardInterrupt:
                job.stop(GRACE)
                self._wait()
                raise
        return job.evaluation()

    def stop(self) -> None:
        """Ask nothing more; answers being written get some seconds."""
        if self._job is not None:
            self._job.stop()

    def actions(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {"start": lambda _: self._start_aside(), "stop": lambda _: self.stop()}

    def static_html(self) -> str:
        if self._evaluation is None:
            return picture.frame("Evaluation", _STATES.get(self.phase, self.phase), _line(self.title))
        parts = [report.fragment(self._evaluation)]
        return picture.frame("Evaluation", _STATES.get(self.phase, self.phase), picture.facts_table(self.facts), *parts)

    def static_text(self) -> str:
        head = f"EvaluationPanel({self.title}): {_STATES.get(self.phase, self.phase)}"
        return head if self._evaluation is None else f"{head}\n{self._evaluation}"

    def _start_aside(self) -> None:
        # Reading the data may take seconds; the thread that brings messages must stay free.
        if self._job is not None and not self._job.done:
            raise ValueError("The evaluation is running already.")

        def begin() -> None:
            try:
                self.start()
            except Exception as error:  # a thread's exception would be seen by nobody
                self.fail(error)
                self.publish(phase="idle")

        self.publish(phase="reading", problem={})
        threading.Thread(target=begin, name="ipytune-panel", daemon=True).start()

    def _begin(self) -> Job:
        with self._lock:
            if self._job is not None and not self._job.done:
                raise ValueError("The evaluation is running already.")
            if not self._endpoints:
                raise ValueError(
                    "This panel shows an earlier evaluation. Make one with data and endpoints to ask again."
                )
            self._job = Job(plan(self._data, self._endpoints, self._asked_scorers, **self._settings), self._timeouts)
            self._next_results = 0.0
            self.publish(phase="asking", problem={}, verdicts=[], rows=[], note="")
            return self._job

    def _wait(self) -> None:
        while (pause := self._look()) is not None:
            time.sleep(pause)

    def _look(self) -> float | None:
        """Show how far it is; seconds until the next look, None when it has ended."""
        with self._lock:
            job = self._job
            if job is None:
                return None
            progress = job.progress()
            over = job.done
            if over:
                progress = job.progress()  # the last one: it may have ended since
            if over or time.monotonic() >= self._next_results:
                began = time.monotonic()
                self._show(job.evaluation(), over)
                self._next_results = time.monotonic() + max(_RARELY, 10 * (time.monotonic() - began))
            self.publish(
                phase=progress.phase,
                percent=100.0 * progress.done / max(progress.total, 1),
                facts=facts(progress),
            )
            if over:
                job.wait()  # raises what nobody foresaw
                return None
            return _LOOK

    def _show(self, evaluation: Evaluation, over: bool = True) -> None:
        # Verdicts only at the end: who looks at p-values until one is small will find one.
        self._evaluation = evaluation
        self.publish(
            scorers=list(evaluation.scorers),
            columns=columns(evaluation),
            rows=[row_of(row) for row in evaluation.rows("failures", _ROWS)],
            verdicts=list(evaluation.verdicts) if over else [],
            note=f"{len(evaluation.questions)} questions, kept in {evaluation.directory}",
        )


def facts(progress: Progress) -> list[list[str]]:
    """The numbers under the bar, in words."""
    left = progress.remaining_seconds
    known = sum(column.known for column in progress.columns)
    estimated = any(column.tokens_estimated for column in progress.columns)
    shown = [
        ["Answers", f"{progress.done} of {progress.total}"],
        ["Time", seconds(progress.seconds)],
        ["Left", "–" if left is None else "done" if left == 0 else f"about {seconds(left)}"],
        ["Written", f"{'≈ ' if estimated else ''}{progress.output_tokens:,} tokens"],
        ["Read", f"{progress.prompt_tokens:,} tokens"],
    ]
    if known:
        shown.append(["Known before", str(known)])
    if progress.failed:
        shown.append(["Without answer", str(progress.failed)])
    if progress.judge_tokens:
        shown.append(["The judge", f"{progress.judge_tokens:,} tokens"])
    return shown


def columns(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One entry a model: results by scorer as words and as numbers to draw, and its problem."""
    found = {(item.endpoint, item.scorer): item for item in evaluation.summaries}
    shown = []
    for column, endpoint in zip(evaluation.columns, evaluation.info["endpoints"], strict=True):
        results = []
        for scorer in evaluation.scorers:
            item = found.get((column.endpoint, scorer))
            results.append(
                {}
                if item is None
                else {
                    "words": verdicts.result(item),
                    "mean": item.mean,
                    "low": item.interval.low,
                    "high": item.interval.high,
                }
            )
        problem = column.problem
        shown.append(
            {
                "name": column.endpoint,
                "model": endpoint["model"],
                "done": f"{column.done} of {column.total}",
                "results": results,
                "problem": {}
                if problem is None
                else {"what": problem.what, "why": problem.why, "remedy": problem.remedy},
            }
        )
    return shown


def row_of(row: Row) -> dict[str, Any]:
    """One question for the browser: texts to show, bounded."""
    return {
        "line": row.question.line,
        "question": _cut(row.question.text),
        "expected": _cut(row.question.expected or ""),
        "answers": [_answer(cell) for cell in row.cells],
    }


def _answer(cell: Cell) -> dict[str, Any]:
    marks = [
        f"{name}: {score}" if isinstance(score, str) else f"{name}: {_mark(score)}"
        for name, score in cell.scores.items()
    ]
    return {
        "endpoint": cell.endpoint,
        "failed": cell.failed,
        "text": _cut(str(cell.problem) if cell.problem is not None else cell.text),
        "marks": [clipped(visible(mark), 200) for mark in marks],
    }


def _mark(score: Score) -> str:
    sign = {True: "✓", False: "✗", None: f"{score.value:.2f}"}[score.passed]
    return f"{sign} {score.detail}".rstrip()


def _cut(text: str) -> str:
    more = len(text) - _WORDS
    return visible(text) if more <= 0 else f"{visible(text[:_WORDS])} … {more:,} characters more"


def _line(text: str) -> str:
    return f"<div>{report.escape(text)}</div>"
