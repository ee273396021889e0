"""Runs side by side: what differs in their settings, their curves over one another, their results.

    compare(["runs/a", "runs/b"])             # in a notebook: shows itself
    print(compare(runs("runs"), by="tokens").text())

A comparison is read once and holds no file. How it is drawn is in `compare_views`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ipytune.lora.config import ConfigError
from ipytune.runs.directory import RunDirectory, curve, evaluations
from ipytune.runs.library import RunSummary, summary
from ipytune.runs.process import Run
from ipytune.runs.settings import flattened
from ipytune.series import smoothed, thinned

Axis = Literal["step", "tokens", "time"]
_FIELDS = {"step": "step", "tokens": "tokens", "time": "elapsed_seconds"}
LIMIT = 400  # points of one curve: as many as the picture is wide, about


@dataclass(frozen=True)
class Mark:
    """One loss of a curve, and where it stands on each axis."""

    at: float
    loss: float


@dataclass(frozen=True)
class Curve:
    """A run's losses along the axis of the comparison."""

    training: tuple[Mark, ...]
    """Smoothed (an exponential average), at most LIMIT marks."""
    held_out: tuple[Mark, ...]
    """As they were measured."""


@dataclass(frozen=True)
class Compared:
    """One run of a comparison."""

    label: str
    """Its directory's name; with as much of the path before it as tells it from the others."""
    summary: RunSummary
    settings: dict[str, Any]
    report: dict[str, Any]
    curve: Curve


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. Shows itself in a notebook and, by rich, in a terminal."""

    runs: tuple[Compared, ...]
    by: Axis
    differences: dict[str, tuple[Any, ...]]
    """Setting -> its value in each run, in their order; only settings in which they differ."""

    @property
    def best(self) -> Compared | None:
        """The run with the lowest held-out loss; None where fewer than two have one, where it is a tie, or where they
        were not measured on the same conversations."""
        measured = [run for run in self.runs if run.summary.eval_loss is not None]
        if len(measured) < 2 or len({run.settings.get("eval_sha256") for run in measured}) > 1:
            return None
        first, second = sorted(measured, key=lambda run: run.summary.eval_loss or 0.0)[:2]
        return None if first.summary.eval_loss == second.summary.eval_loss else first

    def html(self) -> str:
        """Self-contained: inline SVG and styles, no script, readable on light and dark."""
        from ipytune.runs.compare_views import html

        return html(self)

    def text(self, width: int = 120) -> str:
        """For a terminal or a log, at most `width` columns."""
        from ipytune.runs.compare_views import text

        return text(self, width)

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        return self.text()

    def __rich__(self) -> Any:
        from ipytune.runs.compare_views import tables

        return tables(self)


def compare(runs: Iterable[Path | str | Run | RunSummary], by: Axis = "step") -> Comparison:
    """Reads at least two runs, which may still train; by: what the curves are drawn over (`time`: seconds of training).

    Raises ValueError for fewer than two, one named twice or an unknown axis, FileNotFoundError for a directory without
    a run, ConfigError for one whose configuration cannot be read.
    """
    if by not in get_args(Axis):
        raise ValueError(f"by: {by!r} is no axis. Choose one of: {', '.join(get_args(Axis))}.")
    paths = [_path(run) for run in runs]
    if len(paths) < 2:
        raise ValueError(f"A comparison needs at least two runs; {len(paths)} given.")
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise ValueError(f"{', '.join(twice)} is named twice. Name each run once.")
    compared = tuple(_read(path, label, by) for path, label in zip(paths, labels(paths), strict=True))
    return Comparison(compared, by, differences([run.settings for run in compared]))


def differences(settings: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The settings in which not all agree, each with its values in order; None where a run has no such setting.

    >>> differences([{"seed": 0, "lora.rank": 8}, {"seed": 0, "lora.rank": 16}])
    {'lora.rank': (8, 16)}
    """
    names = dict.fromkeys(name for each in settings for name in each)
    values = {name: tuple(each.get(name) for each in settings) for name in names}
    return {name: given for name, given in values.items() if any(value != given[0] for value in given)}


def labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart.

    >>> labels([Path("/a/x"), Path("/b/x")]), labels([Path("/a/x"), Path("/a/y")])
    (['a/x', 'b/x'], ['x', 'y'])
    """
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def curve_of(events: Sequence[dict[str, Any]], by: Axis) -> Curve:
    """The curve in a run's events; what was repeated after a crash appears once, as repeated."""
    points = [point for point in curve(list(events)) if _is_number(point.get("loss")) and _is_number(point.get("step"))]
    steps = [point["step"] for point in points]
    at = {point["step"]: float(point.get(_FIELDS[by]) or 0) for point in points}
    marks = thinned(smoothed(steps, [float(point["loss"]) for point in points]), LIMIT)
    training = tuple(Mark(at[mark.step], mark.smooth) for mark in marks)
    held_out = tuple(
        Mark(float(step) if by == "step" else _place(step, steps, at), loss)
        for step, loss in sorted(evaluations(events).items())
        if by == "step" or steps
    )
    return Curve(training, held_out)


def _place(step: int, steps: Sequence[int], at: dict[int, float]) -> float:
    """Where a step stands on the axis: at the first record that is not before it (log_every may skip its own)."""
    return at[steps[min(bisect_left(steps, step), len(steps) - 1)]]


def _read(path: Path, label: str, by: Axis) -> Compared:
    directory = RunDirectory(path)
    run = Run.open(path)
    found = summary(path)
    try:
        report = directory.read_report()
    except (OSError, ValueError, TypeError):
        report = {}
    try:
        settings = flattened(run.config)
    except ConfigError as error:
        raise ConfigError(f"{error} This run cannot be compared; leave it out.") from error
    return Compared(label, found, settings, report, curve_of(run.events()[0], by))


def _path(run: Path | str | Run | RunSummary) -> Path:
    return run.path if isinstance(run, (Run, RunSummary)) else RunDirectory(run).path


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
