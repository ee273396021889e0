"""Runs every notebook as a nightly job would and judges it: `python -m tests.notebooks` (`make notebooks`).

Side by side as cores and memory allow. Writes results.json and the executed notebooks to --out, HTML to --gallery.
Exit status 1 if one fails; a skip that has expired is a failure.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nbformat
import psutil
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ipytune.processor import usable_cpus
from tests.notebooks.expectations import Expectations, expectations_of
from tests.notebooks.gallery import write_gallery
from tests.notebooks.judge import ROOT, Outcome, failed, outcome_of, summary
from tests.notebooks.process import Run, prepare_model, start
from tests.notebooks.schedule import Demand, in_order, next_to_start
from tests.notebooks.skips import read_skips, skip_of
from tests.notebooks.structure import findings_of_structure

NOTEBOOKS = ROOT / "notebooks"
KEPT_FREE_GB = 1.0  # of memory, for everything else
TOO_LONG = 4.0  # times its budget: then it is ended
BETWEEN_LOOKS = 0.5  # s


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    console = Console(highlight=False)
    paths = sorted(NOTEBOOKS.glob("[0-9][0-9]-*.ipynb"))
    chosen = [path for path in paths if not options.only or path.stem.startswith(tuple(options.only))]
    if not chosen:
        print(f"No notebook begins with {', '.join(options.only)}; there are: {', '.join(p.stem for p in paths)}.")
        return 2
    out = Path(options.out or tempfile.mkdtemp(prefix="notebooks-")).absolute()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        outcomes, expected = look(chosen, [path.stem for path in paths], options.profile)
    except ValueError as error:
        print(error)
        return 2
    for outcome in outcomes.values():
        _say(outcome, console)
    executed: dict[str, Path] = {}
    to_run = [path for path in chosen if path.stem in expected]
    if to_run:
        prepare_model()
    with tempfile.TemporaryDirectory(prefix="runs-", dir=out, ignore_cleanup_errors=True) as runs:
        for attempt in range(1 + options.again):
            for run in run_all(to_run, expected, options.profile, Path(runs, str(attempt)), console):
                outcome = outcome_of(run, options.profile, expected[run.name])
                if attempt:
                    outcome.unsteady = outcome.state == "passed"
                    outcome.notes += [f"first: {finding}" for finding in outcomes[run.name].findings]
                outcomes[run.name] = outcome
                executed[run.name] = _keep(run, out)
                _say(outcome, console)
            to_run = [path for path in to_run if outcomes[path.stem].state == "failed"]
    ordered = [outcomes[path.stem] for path in chosen]
    results = {
        "summary": summary(ordered),
        "profile": options.profile,
        "seconds": round(time.monotonic() - began, 1),
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "notebooks": [outcome.as_dict() for outcome in ordered],
    }
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.gallery:
        write_gallery(Path(options.gallery), ordered, executed, {name: e.metrics for name, e in expected.items()})
    if unsteady := [outcome.notebook for outcome in ordered if outcome.unsteady]:
        print(f"Unsteady: failed first, passed when tried again: {', '.join(unsteady)}")
    print(f"{summary(ordered)} in {results['seconds']:.0f} s; results in {out}")
    return int(any(outcome.state == "failed" for outcome in ordered))


def look(
    chosen: Sequence[Path], names: list[str], profile: str, today: datetime.date | None = None
) -> tuple[dict[str, Outcome], dict[str, Expectations]]:
    """Before anything runs: outcomes of those that will not run, and the expectations of those that will."""
    skips = read_skips(NOTEBOOKS / "skip.yaml", names)
    outcomes: dict[str, Outcome] = {}
    expected: dict[str, Expectations] = {}
    for path in chosen:
        skip = skip_of(path.stem, profile, skips)
        if skip is not None and skip.expired(today or datetime.date.today()):
            outcomes[path.stem] = failed(path.stem, profile, [f"its skip expired on {skip.expires}: {skip.reason}"])
        elif skip is not None:
            outcomes[path.stem] = Outcome(path.stem, profile, "skipped", notes=[f"{skip.reason} ({skip.expires})"])
        elif findings := findings_of_structure(nbformat.read(path, as_version=4), path.stem):
            outcomes[path.stem] = failed(path.stem, profile, findings)
        else:
            try:
                expected[path.stem] = expectations_of(path)
            except ValueError as error:
                outcomes[path.stem] = failed(path.stem, profile, [str(error)])
    return outcomes, expected


def run_all(
    paths: Sequence[Path], expected: Mapping[str, Expectations], profile: str, folder: Path, console: Console
) -> Iterator[Run]:
    """Each as it ends, its folder still there; whoever stops asking ends those that run."""
    needs = [(path.stem, expected[path.stem]) for path in paths]
    waiting = in_order([Demand(name, need.seconds, need.memory_gb, need.cores) for name, need in needs])
    by_name = {path.stem: path for path in paths}
    free = set(sorted(os.sched_getaffinity(0))[: usable_cpus()])
    memory_gb = psutil.virtual_memory().available / 1e9 - KEPT_FREE_GB
    running: dict[Demand, tuple[Run, tuple[int, ...], TaskID]] = {}
    progress = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console)
    try:
        with progress:
            while waiting or running:
                while (found := next_to_start(waiting, running, free, memory_gb)) is not None:
                    demand, cores = found
                    waiting.remove(demand)
                    free -= set(cores)
                    limit = TOO_LONG * demand.seconds
                    run = start(by_name[demand.name], folder / demand.name, profile, cores, limit)
                    running[demand] = (run, cores, progress.add_task(demand.name, total=None))
                for demand, (run, cores, task) in list(running.items()):
                    if run.poll():
                        del running[demand]
                        free |= set(cores)
                        progress.remove_task(task)
                        yield run
                time.sleep(BETWEEN_LOOKS)
    finally:
        for run, _, _ in running.values():
            run.end()


def _keep(run: Run, out: Path) -> Path:
    """The executed notebook and the log beside the results; the rest of its folder goes."""
    kept = out / f"{run.name}.ipynb"
    if run.executed.is_file():
        shutil.copy(run.executed, kept)
    shutil.copy(run.folder / "papermill.log", out / f"{run.name}.log")
    shutil.rmtree(run.folder, ignore_errors=True)
    return kept


def _say(outcome: Outcome, console: Console) -> None:
    used = "" if outcome.seconds is None else f"{outcome.seconds:>7.1f} s{outcome.memory_gb:>7.2f} GB"
    console.print(f"{outcome.state:<8}{outcome.notebook:<32}{used}")
    for line in (*outcome.findings, *(f"note: {note}" for note in outcome.notes)):
        console.print(f"        {line}", markup=False)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.notebooks", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="those whose name begins like this")
    parser.add_argument("--again", type=int, default=0, metavar="N", help="try what failed up to N times again")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--out", metavar="DIR", help="for results.json, logs and executed notebooks")
    parser.add_argument("--gallery", metavar="DIR", help="for the HTML pages")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the runs are ended first
    sys.exit(main())
