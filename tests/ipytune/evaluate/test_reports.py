"""Reports hold everything, the worst first, and nothing in them runs, whatever a model wrote."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ipytune.evaluate import Evaluation, evaluate
from ipytune.mock import Behaviour, start_mock

ATTACK = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
ROWS = [
    {"prompt": "right", "expected": "yes"},
    {"prompt": ATTACK, "expected": ATTACK},
    {"prompt": "formula", "expected": "5"},
    {"prompt": "long", "expected": "no"},
]


def says(body: Mapping[str, Any]) -> str:
    asked = body["messages"][-1]["content"]
    return {"right": "yes", ATTACK: "\x1b[31m" + ATTACK, "formula": '=HYPERLINK("x")', "long": "word " * 3000}[asked]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluation]:
    with start_mock(Behaviour(text=says, models=(f"m{ATTACK}", "n")), process=False) as mock:
        endpoints = [mock.endpoint("one"), mock.endpoint("two", "n")]
        yield evaluate(
            ROWS, endpoints, ["exact", "similarity:0.9"], directory=tmp_path_factory.mktemp("e"), max_tokens=9000
        )


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_runs_nothing_and_asks_nobody(found: Evaluation, tmp_path: Path) -> None:
    page = found.to_html(tmp_path / "r.html").read_text()
    tags = Tags(page).found
    names = [tag for tag, _ in tags]
    assert names.count("script") == 1 and "img" not in names
    assert not any(name.startswith("on") or name in ("src", "href") for _, attrs in tags for name in attrs)
    assert "default-src 'none'" in page and "color-scheme: light dark" in page
    assert "http" not in re.sub(r"http://127\.0\.0\.1:\d+|http-equiv", "", page)


def test_the_page_has_failures_first_and_can_be_filtered(found: Evaluation) -> None:
    page = found.to_html(found.directory / "r.html").read_text()
    kinds = re.findall(r'data-kind="([^"]*)"', page)
    assert kinds == ["failed", "failed", "failed", ""]
    assert "Failures" in page and "Differences" in page and "characters more" in page
    assert page.index("exact ✗") < page.index("exact ✓")


def test_a_long_page_is_cut_and_says_so(found: Evaluation, tmp_path: Path) -> None:
    page = found.to_html(tmp_path / "r.html", limit=2).read_text()
    assert page.count("data-kind") == 2 and "The 2 worst of 4 questions" in page


def test_what_a_notebook_shows_is_short_and_escaped(found: Evaluation) -> None:
    shown = found._repr_html_()
    assert "<img" not in shown and "<script" not in shown and "&lt;img" in shown
    assert len(shown) < 20_000 and "not distinguishable" in shown


def test_csv_has_every_answer_and_no_formula(found: Evaluation, tmp_path: Path) -> None:
    path = found.to_csv(tmp_path / "r.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and {row["endpoint"] for row in rows} == {"one", "two"}
    by_question = {row["question"]: row for row in rows}
    assert by_question["formula"]["answer"] == '\'=HYPERLINK("x")'
    assert by_question["long"]["answer"].startswith("word word") and len(by_question["long"]["answer"]) > 10_000
    assert by_question["right"]["exact"] == "1.0" and float(by_question["right"]["similarity:0.9"]) == 1
    assert not any(value.startswith("=") for row in rows for value in row.values())


def test_json_has_everything_as_it_was(found: Evaluation, tmp_path: Path) -> None:
    document = json.loads(found.to_json(tmp_path / "r.json").read_text())
    assert len(document["rows"]) == 4 and document["verdicts"] == list(found.verdicts)
    answers = {row["messages"][-1]["content"]: row["answers"] for row in document["rows"]}
    assert answers["formula"][0]["text"] == '=HYPERLINK("x")'
    assert answers["right"][0]["scores"]["exact"] == {"value": 1.0, "passed": True, "detail": ""}
    assert document["endpoints"][0]["model"].startswith("m<img")


def test_text_has_the_table_the_verdicts_and_failures(found: Evaluation) -> None:
    text = str(found)
    assert re.search(r"one +25.0 % \(95 % CI .*\), 1 of 4", text)
    assert "two and one are not distinguishable" in text and "line 3: formula" in text
    assert len(text) < 3000


def test_rows_are_chosen_and_the_worst_first(found: Evaluation) -> None:
    assert [row.question.text for row in found.rows("failures", 1)] == [ATTACK]
    assert [row.question.text for row in found.rows()][-1] == "right"
    assert list(found.rows("differences")) == []
