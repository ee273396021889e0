"""The result of a load measurement: what was asked, where the client ran, the numbers of each step. No key, no text.

`LoadReport.write(directory)` makes report.json (all of it), report.csv (a row a step) and report.html (the curves).
records.jsonl, one line a request, is written beside them while the measurement goes on.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ipytune.endpoints.format import seconds
from ipytune.load.metrics import Numbers
from ipytune.load.plan import Load, Plan

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class MeasuredEndpoint(BaseModel):
    """The endpoint that was measured: its record without where its key comes from."""

    model_config = _FROZEN

    name: str
    base_url: str
    model: str


class Client(BaseModel):
    """Where the client ran, and with what: part of every result, because the way to the server is measured, too."""

    model_config = _FROZEN

    host: str
    same_machine: bool
    job: str | None
    cpu: str
    cpus: int
    system: str
    python: str
    ipytune: str


class StepResult(BaseModel):
    """One step. lag_p99 (seconds), cpu_shares (of a core, one a process): the client's own state.

    client_limited: why the numbers may be the client's rather than the server's; empty if nothing speaks for it.
    saturated: how one sees that the server did not keep up, or None.
    ended: "sent" (as planned), "stopped", "hopeless" (nothing but errors), "in-flight limit".
    """

    model_config = _FROZEN

    kind: Literal["closed", "open", "trace"]
    value: float
    label: str
    processes: int
    numbers: Numbers
    lag_p99: float
    cpu_shares: tuple[float, ...]
    client_limited: tuple[str, ...]
    saturated: str | None
    ended: str

    @property
    def load(self) -> Load:
        return Load(self.kind, self.value)


class LoadReport(BaseModel):
    """See the module. ended: "completed", "saturated" (the sweep found the limit), "stopped" by somebody."""

    model_config = _FROZEN

    endpoint: MeasuredEndpoint
    plan: Plan
    client: Client
    started_at: str
    seconds: float
    ended: Literal["completed", "saturated", "stopped"]
    steps: tuple[StepResult, ...]

    @property
    def client_limited(self) -> bool:
        return any(step.client_limited for step in self.steps)

    @property
    def succeeded(self) -> int:
        return sum(step.numbers.succeeded for step in self.steps)

    def notes(self) -> list[str]:
        """What a reader must know to read the numbers rightly."""
        found = []
        for step in self.steps:
            if step.client_limited:
                found.append(f"{step.label}: limited by the client: {'; '.join(step.client_limited)}.")
            if step.saturated:
                found.append(f"{step.label}: saturated: {step.saturated}.")
            if step.ended == "hopeless":
                found.append(f"{step.label}: ended early, because nothing but errors came.")
            if step.ended == "stopped":
                found.append(f"{step.label}: stopped before its end; the part that was measured is kept.")
            for failure in step.numbers.failures:
                found.append(f"{step.label}: {failure.count} × {failure.kind}. {failure.example}")
        numbers = [step.numbers for step in self.steps]
        if any(one.tokens_estimated for one in numbers):
            found.append("The server gave no token counts: chunks were counted instead, one of which may hold several.")
        if any(one.chunks_hold_several for one in numbers):
            found.append("Chunks hold several tokens: the gaps are inter-chunk latencies, not ITL.")
        if not self.plan.pin_output:
            found.append("The length of the answers was not pinned: answers of different lengths are compared.")
        if not self.plan.unique_prefix:
            found.append("Prompts may repeat: a prefix cache may have answered for the model.")
        if self.client.same_machine:
            found.append("Client and server ran on the same machine, and may have taken time from one another.")
        return found

    def as_csv(self) -> str:
        """A row a step; seconds and counts as plain numbers."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(_CSV))
        writer.writeheader()
        for step in self.steps:
            writer.writerow({name: _plain(read(step)) for name, read in _CSV.items()})
        return text.getvalue()

    def write(self, directory: Path | str) -> Path:
        """Write report.json, report.csv and report.html there; returns the directory."""
        from ipytune.load.page import page

        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        written = json.dumps(self.model_dump(mode="json"), indent=1) + "\n"
        for name, text in (("report.json", written), ("report.csv", self.as_csv()), ("report.html", page(self))):
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    @classmethod
    def read(cls, directory: Path | str) -> LoadReport:
        """The report in a directory. Raises FileNotFoundError, or ValueError for a file that is none."""
        return cls.model_validate_json((Path(directory) / "report.json").read_text(encoding="utf-8"))


def headings(steps: tuple[StepResult, ...]) -> list[str]:
    """Of the table that panels, pages and the command line show."""
    gap = steps[0].numbers.gap_name if steps else "ITL"
    objectives = any(step.numbers.good_share is not None for step in steps)
    return [
        "Load",
        "Requests",
        "Errors",
        "TTFT p50",
        "TTFT p99",
        f"{gap} p50",
        f"{gap} p99",
        "TPOT p50",
        "Tokens/s",
        "Requests/s",
        "In flight",
        *(["Goodput"] if objectives else []),
    ]


def row(step: StepResult, objectives: bool = False) -> list[str]:
    """The cells of one step under `headings`."""
    numbers = step.numbers
    goodput = "–" if numbers.goodput is None else f"{numbers.goodput:.2f}/s ({numbers.good_share or 0:.0%})"
    return [
        step.label,
        str(numbers.succeeded),
        str(numbers.failed),
        brief(numbers.ttft.p50),
        brief(numbers.ttft.p99),
        brief(numbers.itl.p50),
        brief(numbers.itl.p99),
        brief(numbers.tpot.p50),
        f"{numbers.output_tokens_per_second:,.0f}",
        f"{numbers.requests_per_second:.2f}",
        f"{numbers.concurrency_mean:.1f}",
        *([goodput] if objectives else []),
    ]


def table(report_steps: tuple[StepResult, ...]) -> tuple[list[str], list[list[str]]]:
    """(headings, rows) of the steps."""
    heads = headings(report_steps)
    return heads, [row(step, objectives=heads[-1] == "Goodput") for step in report_steps]


def brief(value: float | None) -> str:
    """Seconds in words.

    >>> brief(0.0043), brief(0.25), brief(None)
    ('4.3 ms', '250 ms', '–')
    """
    return f"{value * 1000:.1f} ms" if value is not None and value < 0.01 else seconds(value)


def _part(step: StepResult, name: str, part: str) -> float | None:
    found: float | None = getattr(getattr(step.numbers, name), part)
    return found


def _plain(value: object) -> object:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


_CSV: dict[str, Callable[[StepResult], object]] = {
    "kind": lambda s: s.kind,
    "load": lambda s: s.value,
    "processes": lambda s: s.processes,
    "window_seconds": lambda s: s.numbers.window_seconds,
    "measured": lambda s: s.numbers.measured,
    "succeeded": lambda s: s.numbers.succeeded,
    "failed": lambda s: s.numbers.failed,
    "unfinished": lambda s: s.numbers.unfinished,
    **{
        f"{name}_{part}_seconds": (lambda step, name=name, part=part: _part(step, name, part))  # type: ignore[misc]
        for name in ("ttft", "ttfot", "itl", "tpot", "e2e", "queue")
        for part in ("mean", "p50", "p90", "p95", "p99", "max")
    },
    "tokens_per_chunk": lambda s: s.numbers.tokens_per_chunk,
    "output_tokens_per_second": lambda s: s.numbers.output_tokens_per_second,
    "requests_per_second": lambda s: s.numbers.requests_per_second,
    "concurrency_mean": lambda s: s.numbers.concurrency_mean,
    "concurrency_max": lambda s: s.numbers.concurrency_max,
    "goodput_per_second": lambda s: s.numbers.goodput,
    "good_share": lambda s: s.numbers.good_share,
    "lag_p99_seconds": lambda s: s.lag_p99,
    "client_limited": lambda s: "; ".join(s.client_limited),
    "saturated": lambda s: s.saturated,
}
