"""What the fine-tuning panel shows of each step: plain data for the browser, static HTML for the saved notebook. Pure
but for sizes of files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ipytune.data.findings import SHOWN, Finding
from ipytune.data.report import Report
from ipytune.finetune import form
from ipytune.finetune.draft import Draft
from ipytune.finetune.look import Columns, Look
from ipytune.memory.advice import Fit, Verdict, size
from ipytune.memory.bar import COLOURS, bar_html
from ipytune.memory.probe import Probe
from ipytune.runs import Phase, Run, words
from ipytune.runs.library import size_of
from ipytune.widgets import picture
from ipytune.widgets.follow import memory as memory_words

TITLES = {
    "data": "Data",
    "settings": "Settings",
    "memory": "Memory",
    "training": "Training",
    "adapter": "Adapter",
}


# --- for the browser -------------------------------------------------------------------------------------------------


def steps(
    errors: Mapping[str, str], look: Look | None, fit: Fit | None, phase: Phase | None, adapter: bool
) -> list[dict[str, str]]:
    """Each step and how it stands: "", done, problem or busy. look: of the settings as they are now, else None."""
    states = dict.fromkeys(TITLES, "")
    if look is not None:
        states["data"] = "done" if look.passed else "problem"
    if errors:
        states["data" if errors.keys() <= {*form.DATA, "data.columns"} else "settings"] = "problem"
    elif look is not None or phase is not None:
        states["settings"] = "done"
    if fit is not None:
        states["memory"] = "problem" if fit.verdict is Verdict.DOES_NOT_FIT else "done"
    if phase is not None:
        ended = {Phase.COMPLETED: "done", Phase.STOPPED: "done", Phase.ERROR: "problem"}
        states["training"] = ended.get(phase, "busy")
        states["data"] = states["data"] or "done"
    if adapter and phase is not None and phase.final:
        states["adapter"] = "done"
    return [{"key": key, "title": title, "state": states[key]} for key, title in TITLES.items()]


def columns(found: Columns | None, draft: Draft) -> dict[str, Any]:
    """The rows of the mapping, and what the columns seem to be; empty where there is nothing to map."""
    if found is None:
        return {}
    layout, set_to = str(draft.value("data.layout")), draft.value("data.columns") or {}
    rows = form.mapping(found.names, found.asked(layout), set_to)
    guessed = found.guessed
    suggestion = ""
    if layout == "auto" and guessed.columns and not set_to:
        suggestion = ", ".join(f"{ours} is “{theirs}”" for ours, theirs in guessed.columns.items())
    says = f"The file has the column{'s' if len(found.names) > 1 else ''} {', '.join(found.names)}."
    if layout == "auto" and guessed.certain:
        says += f" The layout is {guessed.layout}."
    elif layout == "auto" and guessed.layout is None and not set_to:
        says += f" {guessed.reason[:1].upper()}{guessed.reason[1:]}. Choose a layout, then its columns."
    plain = guessed.certain and layout == "auto" and not set_to
    return {"rows": [] if plain else rows, "says": says, "suggestion": suggestion}


def found(look: Look, current: bool) -> dict[str, Any]:
    return {
        "current": current,
        "passed": look.passed,
        "counts": [list(pair) for pair in counts(look.report)] if look.report is not None else [],
        "findings": [_finding(item) for item in _in_order(look.findings)[:SHOWN]],
        "more": max(0, len(look.findings) - SHOWN),
        "preview": look.first_batch.plain() if look.first_batch is not None else [],
    }


def counts(report: Report) -> list[tuple[str, str]]:
    share = f" ({report.learned_tokens / report.tokens:.0%})" if report.tokens else ""
    pairs = [
        ("Conversations", f"{report.examples:,}"),
        ("Held out", f"{report.held_out_examples:,}"),
        ("Tokens", f"{report.tokens:,}"),
        ("Learned", f"{report.learned_tokens:,}{share}"),
        ("Longest", f"{report.longest:,}"),
    ]
    pairs += [("Cut", f"{report.cut:,}")] if report.cut else []
    return pairs + ([("Dropped", f"{report.dropped:,}")] if report.dropped else [])


def memory(fit: Fit, measured: Probe | None, current: bool) -> dict[str, Any]:
    """Shares are of the longer of what is needed and what is free."""
    need = fit.device_need
    used = fit.estimate.total
    whole = max(used, need.limit.free, measured.peak if measured is not None else 0, 1)
    return {
        "current": current,
        "verdict": str(fit.verdict),
        "words": fit.words().splitlines(),
        "parts": [
            {"label": part.label, "size": size(part.bytes), "share": part.bytes / whole, "colour": COLOURS[part.key]}
            for part in fit.estimate.parts
        ],
        "needed": size(used),
        "free": size(need.limit.free),
        "free_share": need.limit.free / whole,
        "changes": fit.remedy is not None and bool(fit.remedy.settings),
        "probe": "" if measured is None else str(measured),
        "probe_share": 0 if measured is None else measured.peak / whole,
        "probe_fits": measured is None or measured.fits,
    }


def result(run: Run, adapter: Path) -> dict[str, Any]:
    """What came out of a run: its numbers, and the files that can be taken away."""
    status = run.status()
    if not status.phase.final:
        return {}
    report = run.report() if status.phase is not Phase.ERROR else {}
    facts = [("Steps", f"{status.step:,}"), ("Loss", _number(report.get("loss", status.loss)))]
    if report.get("eval_loss") is not None:
        facts.append(("Held-out loss", _number(report["eval_loss"])))
    if report.get("training_seconds") is not None:
        facts.append(("Training", f"{report['training_seconds']:,.0f} s"))
    facts.append(("Peak memory", memory_words(status.memory_bytes)))
    candidates = (
        ("Adapter (PEFT)", adapter),
        ("Model card", adapter / "README.md"),
        ("Merged model", merged_path(run.path)),
        ("GGUF", gguf_path(run.path)),
    )
    files = [[name, _from_here(path), words.size(size_of(path))] for name, path in candidates if path.exists()]
    return {"facts": [list(pair) for pair in facts], "files": files, "made": [name for name, _, _ in files]}


# --- beside the run directory ----------------------------------------------------------------------------------------


def merged_path(run_dir: Path) -> Path:
    return run_dir.with_name(f"{run_dir.name}-merged")


def gguf_path(run_dir: Path) -> Path:
    return run_dir.with_name(f"{run_dir.name}.gguf")


def next_directory(run_dir: Path) -> Path:
    """The first of NAME-2, NAME-3, … that is not there."""
    numbered = re.fullmatch(r"(.+)-(\d+)", run_dir.name)
    name, number = (numbered[1], int(numbered[2]) + 1) if numbered else (run_dir.name, 2)
    while (path := run_dir.with_name(f"{name}-{number}")).exists():
        number += 1
    return path


def _from_here(path: Path) -> str:
    """As a notebook would write it: relative where it lies below the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


# --- for the saved notebook ------------------------------------------------------------------------------------------


def static_parts(
    look: Look | None, fit: Fit | None, measured: int | None, training: str, result: Mapping[str, Any], sides: str
) -> list[str]:
    """HTML of the steps that have something to show, in their order; `training` and `sides` are HTML already."""
    parts = []
    if look is not None:
        shown = picture.facts_table(counts(look.report)) if look.report is not None else ""
        lines = "".join(f"<li>{escape(str(item))}</li>" for item in _in_order(look.findings)[:SHOWN])
        batch = look.first_batch.html() if look.first_batch is not None else ""
        folded = f"<details><summary>The first batch, as it is learned</summary>{batch}</details>" if batch else ""
        parts.append(_section("Data", f"{shown}{f'<ul>{lines}</ul>' if lines else ''}{folded}"))
    if fit is not None:
        parts.append(_section("Memory", bar_html(fit, measured)))
    if training:
        parts.append(_section("Training", training))
    if result:
        cells = ("".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) for row in result["files"])
        rows = "".join(f'<tr style="background:none">{row}</tr>' for row in cells)
        parts.append(_section("Adapter", f"{picture.facts_table(result['facts'])}<table>{rows}</table>"))
    return [*parts, sides] if sides else parts


def static_frame(title: str, state: str, parts: Sequence[str], problem: Mapping[str, str]) -> str:
    box = picture.problem_box(**problem) if problem else ""
    return picture.frame(f"Fine-tuning · {title}", state, *parts, box)


def _section(title: str, body: str) -> str:
    return f'<div style="margin-top:12px"><b>{escape(title)}</b>{body}</div>'


def _in_order(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda item: item.warning)


def _finding(item: Finding) -> dict[str, Any]:
    place = f"{item.file.name}:{item.line}" if item.line else item.file.name
    return {"place": place, "what": item.what, "remedy": item.remedy, "warning": item.warning}


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, (int, float)) else "–"
