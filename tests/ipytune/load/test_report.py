"""A report says what was measured, where and how well; it stands alone and holds no key."""

from __future__ import annotations

import csv
import io
import re
from array import array
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ipytune.load.curves import Line, chart, curves
from ipytune.load.metrics import Window, summarise
from ipytune.load.page import page
from ipytune.load.plan import Objectives, Plan
from ipytune.load.records import Record
from ipytune.load.report import Client, LoadReport, MeasuredEndpoint, StepResult, brief, table

SECOND = 1_000_000_000


def step(users: int, *, several: bool = False, limited: tuple[str, ...] = (), error: str | None = None) -> StepResult:
    records = []
    for index in range(120):
        sent = index * SECOND // 10
        times = array("q", (sent + (users * 10 + k) * SECOND // 100 for k in range(5)))
        tokens = 15 if several else 5
        sent = max(sent, 1)
        records.append(
            Record(index, due=sent, begun=sent, sent=sent, ended=times[-1], times=times, output_tokens=tokens)
        )
    if error is not None:
        records.append(Record(120, begun=1, sent=1, ended=2).failed("HTTP 500", error))
    numbers = summarise(records, Window(0, 12 * SECOND), Objectives(ttft=0.25))
    return StepResult(
        kind="closed", value=users, label=f"{users} at once", processes=1, numbers=numbers, lag_p99=0.001,
        cpu_shares=(0.2,), client_limited=limited, saturated=None, ended="sent",
    )  # fmt: skip


def report(*steps: StepResult, name: str = "e", **fields: object) -> LoadReport:
    client = Client(
        host="node-7", same_machine=False, job="Slurm job 5", cpu="c", cpus=2, system="Linux", python="3", ipytune="0.1"
    )
    plan = Plan.model_validate({"concurrency": (1, 2), "objectives": {"ttft": 0.25}, **fields})
    return LoadReport(
        endpoint=MeasuredEndpoint(name=name, base_url="http://127.0.0.1:1/v1", model="m"), plan=plan, client=client,
        started_at="2026-01-01T00:00:00+00:00", seconds=3.0, ended="completed", steps=steps,
    )  # fmt: skip


def test_a_report_is_written_and_read_again(tmp_path: Path) -> None:
    made = report(step(1), step(2))
    assert made.write(tmp_path / "out") == tmp_path / "out"
    assert LoadReport.read(tmp_path / "out") == made
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.csv", "report.html", "report.json"]


def test_the_csv_has_a_row_a_step_in_seconds() -> None:
    rows = list(csv.DictReader(io.StringIO(report(step(1), step(2)).as_csv())))
    assert [row["load"] for row in rows] == ["1", "2"]
    assert float(rows[1]["ttft_p50_seconds"]) == pytest.approx(0.2)
    assert rows[0]["saturated"] == ""


def test_the_page_stands_alone_and_escapes_what_came_from_outside() -> None:
    text = page(report(step(1, error="<script>alert(1)</script>"), step(2), name="<b>e</b>"))
    assert "<script" not in text and "<b>e</b>" not in text and "&lt;script&gt;" in text
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://(?!127\.0\.0\.1)", text)
    assert "prefers-color-scheme: dark" in text and text.count("<svg") == 4

    class Balanced(HTMLParser):
        open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "line", "rect", "circle", "br"):
                self.open.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Balanced()
    parser.feed(text)
    assert parser.open == []


def test_a_reader_is_told_what_the_numbers_are_worth() -> None:
    limited = report(step(1, several=True, limited=("it used 99% of a core (limit 85%)",)), pin_output=False)
    notes = " ".join(limited.notes())
    assert limited.client_limited and "limited by the client: it used 99%" in notes
    assert "inter-chunk" in notes and "not pinned" in notes
    assert "Limited by the client" in page(limited)
    assert report(step(1)).notes() == []


def test_the_table_names_gaps_rightly_and_shows_goodput_only_with_objectives() -> None:
    heads, rows = table((step(1),))
    assert "ITL p50" in heads and heads[-1] == "Goodput" and rows[0][-1].endswith("(100%)")
    heads, _ = table((step(1, several=True),))
    assert "inter-chunk latency p50" in heads
    assert table(())[1] == []


def test_a_chart_without_points_is_none_and_one_with_few_is_drawn() -> None:
    assert chart("t", [Line("p99", ((1.0, None),))], "x", brief) == ""
    assert curves(()) == []
    assert "<circle" in chart("t", [Line("p50", ((1.0, 0.0),))], "x", brief)


def test_an_axis_over_a_wide_range_is_logarithmic_and_its_labels_keep_apart() -> None:
    points = tuple((float(2**power), 0.1 * power) for power in range(10))
    drawn = chart("t", [Line("p50", points)], "x", brief)
    at = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="middle">', drawn)]
    assert len(at) >= 5 and all(later - earlier >= 30 for earlier, later in zip(at, at[1:], strict=False))
