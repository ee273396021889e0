"""The evaluation panel: progress, results, failures first, stop and go on; its state holds no key and no raw HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipytune.data.findings import DatasetError
from ipytune.evaluate import evaluate
from ipytune.mock import Behaviour, MockServer, start_mock
from ipytune.widgets.evaluation import EvaluationPanel
from tests.browser.lab import until

KEY = "marker-SECRET-4711"
ATTACK = "<img/src=x/onerror=alert(1)>"
ROWS = [{"prompt": f"q{i}", "expected": f"a{i}"} for i in range(30)]
ANSWERS = {f"q{i}": {"base": ATTACK if i % 3 == 0 else f"a{i}", "tuned": f"a{i}"} for i in range(30)}


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with start_mock(Behaviour(answers=ANSWERS, models=("base", "tuned"), key=KEY), process=False) as server:
        yield server


def state_of(panel: EvaluationPanel) -> str:
    return json.dumps({name: repr(value) for name, value in panel.get_state().items() if not name.startswith("_")})


def test_run_waits_and_shows_results_verdicts_and_failures_first(mock: MockServer, tmp_path: Path) -> None:
    endpoints = [mock.endpoint("base", "base"), mock.endpoint("tuned", "tuned")]
    panel = EvaluationPanel(ROWS, endpoints, ["exact", "similarity"], directory=tmp_path)
    assert (panel.phase, panel.title) == ("idle", "base, tuned") and mock.stats().requests == 0
    result = panel.run()
    assert (panel.phase, panel.percent) == ("completed", 100.0)
    assert panel.scorers == ["exact", "similarity"]
    assert panel.columns[0]["results"][0]["words"] == "66.7 % (95 % CI 48.8 to 80.8), 20 of 30"
    assert panel.columns[0]["results"][0]["low"] < panel.columns[0]["results"][0]["mean"] == pytest.approx(2 / 3)
    assert [row["line"] for row in panel.rows] == [1 + i for i in range(0, 30, 3)]
    assert panel.rows[0]["answers"][0]["failed"] and not panel.rows[0]["answers"][1]["failed"]
    assert panel.verdicts == list(result.verdicts) and "tuned is better" in panel.verdicts[0]
    assert ["Answers", "60 of 60"] in panel.facts
    assert panel.result.summaries == result.summaries


def test_no_key_and_no_raw_html_is_in_the_state_or_the_picture(mock: MockServer, tmp_path: Path) -> None:
    panel = EvaluationPanel(ROWS, mock.endpoint("base", "base"), directory=tmp_path)
    panel.run()
    picture = panel.static_html() + panel.static_text()
    assert KEY not in state_of(panel) + picture + repr(vars(panel))
    assert "<img" not in panel.static_html() and "&lt;img" in panel.static_html()
    assert "66.7 %" in panel.static_text() and "66.7 %" in panel.static_html()


def test_buttons_start_stop_and_go_on(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "expected": f"q{i}"} for i in range(100)]
    with start_mock(Behaviour(echo=True, ttft=0.05), process=False) as mock:
        panel = EvaluationPanel(rows, mock.endpoint(), directory=tmp_path, concurrency=4)
        panel._on_message(panel, {"do": "start"}, [])
        until(lambda: 0 < panel.percent < 100, "some answers", 20)
        panel._on_message(panel, {"do": "start"}, [])
        assert "running already" in panel.problem["what"]
        panel._on_message(panel, {"do": "stop"}, [])
        until(lambda: panel.phase == "stopped", "the stop", 20)
        assert panel.verdicts and "was stopped" in panel.verdicts[0]
        panel._on_message(panel, {"do": "start"}, [])
        until(lambda: panel.phase == "completed", "the end", 30)
        assert mock.stats().requests == 100 and panel.problem == {}
        assert [label for label, _ in panel.facts if label == "Known before"] == ["Known before"]


def test_verdicts_wait_for_the_end(tmp_path: Path) -> None:
    with start_mock(Behaviour(hang_after=1, models=("a", "b")), process=False) as mock:
        endpoints = [mock.endpoint("a", "a"), mock.endpoint("b", "b")]
        panel = EvaluationPanel(ROWS, endpoints, directory=tmp_path)
        panel.start()
        until(lambda: mock.stats().in_flight > 0 and bool(panel.columns[0].get("done")), "the first look", 20)
        assert panel.verdicts == [] and panel.phase == "asking"
        assert panel._job is not None
        panel._job.stop(0)
        until(lambda: panel.phase == "stopped", "the stop", 20)


def test_bad_data_is_raised_and_shown(mock: MockServer, tmp_path: Path) -> None:
    panel = EvaluationPanel([{"prompt": "q"}], mock.endpoint("base", "base"), directory=tmp_path)
    with pytest.raises(DatasetError, match="no expected answer"):
        panel.run()
    panel._on_message(panel, {"do": "start"}, [])
    until(lambda: bool(panel.problem), "the problem", 10)
    assert "no expected answer" in panel.problem["what"] and panel.phase == "idle"
    with pytest.raises(ValueError, match="Nothing was evaluated"):
        _ = panel.result


def test_a_dead_endpoint_is_shown_in_its_row(mock: MockServer, tmp_path: Path) -> None:
    panel = EvaluationPanel(ROWS, [mock.endpoint("base", "base"), mock.endpoint("x", "absent")], directory=tmp_path)
    panel.run()
    assert panel.columns[0]["problem"] == {} and "absent" in panel.columns[1]["problem"]["what"]


def test_an_earlier_evaluation_is_opened_to_be_read(mock: MockServer, tmp_path: Path) -> None:
    found = evaluate(ROWS, mock.endpoint("base", "base"), directory=tmp_path)
    panel = EvaluationPanel.of_directory(tmp_path)
    assert (panel.phase, panel.title) == ("completed", "base") and panel.result.summaries == found.summaries
    assert len(panel.rows) == 10
    with pytest.raises(ValueError, match="shows an earlier evaluation"):
        panel.run()


def test_what_is_sent_is_bounded(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i} " + "long " * 5000, "expected": "a"} for i in range(60)]
    with start_mock(Behaviour(text="word " * 3000, tokens_per_chunk=3000), process=False) as mock:
        panel = EvaluationPanel(rows, mock.endpoint(), directory=tmp_path, max_tokens=5000)
        panel.run()
    assert len(panel.rows) == 25 and len(state_of(panel)) < 150_000
    assert len(panel.static_html()) < 30_000
