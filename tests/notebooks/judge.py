"""What a run amounts to: one outcome with everything that was found, for the table, results.json and the gallery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import nbformat

from tests.notebooks.executed import findings_of_execution
from tests.notebooks.expectations import Expectations, findings_of_metrics, over_budget
from tests.notebooks.leaks import findings_of_leaks
from tests.notebooks.process import Run

State = Literal["passed", "failed", "skipped"]
ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    """`findings` make it fail, `notes` do not."""

    notebook: str
    profile: str
    state: State
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float | None = None
    memory_gb: float | None = None
    budget_seconds: float | None = None
    budget_memory_gb: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    unsteady: bool = False  # failed, and passed when tried again

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def failed(name: str, profile: str, findings: Sequence[str]) -> Outcome:
    """Without a run."""
    return Outcome(name, profile, "failed", list(findings))


def outcome_of(run: Run, profile: str, expectations: Expectations) -> Outcome:
    """Reads what an ended run left in its folder."""
    memory_gb = run.peak_bytes / 1e9
    metrics: dict[str, Any] = {}
    late, notes = over_budget("time", run.seconds, expectations.seconds, "s")
    much, more_notes = over_budget("memory", memory_gb, expectations.memory_gb, "GB")
    findings = [*late, *much]
    if run.timed_out:
        findings.insert(0, f"ended by the runner after {run.limit:.0f} s")
    elif run.process.returncode:
        findings.insert(0, f"papermill ended with {run.process.returncode}: {_last_line(run.log)}")
    findings += [f"left a process behind: {left}" for left in run.left]
    if run.executed.is_file():
        notebook = nbformat.read(run.executed, as_version=4)
        findings += findings_of_execution(notebook)
        findings += findings_of_leaks(notebook, [run.canary], [str(run.folder), str(ROOT), str(Path.home()) + "/"])
    else:
        findings.append("no executed notebook was saved")
    file = run.folder / run.name / "metrics.json"
    if file.is_file():
        metrics = json.loads(file.read_text(encoding="utf-8"))
        findings += findings_of_metrics(metrics, expectations.metrics)
    else:
        findings.append(f"{run.name}/metrics.json was not written")
    return Outcome(
        run.name,
        profile,
        "failed" if findings else "passed",
        findings,
        [*notes, *more_notes],
        round(run.seconds, 1),
        round(memory_gb, 2),
        expectations.seconds,
        expectations.memory_gb,
        metrics,
    )


def _last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line."""
    count = {state: sum(outcome.state == state for outcome in outcomes) for state in ("passed", "failed", "skipped")}
    return f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped"
