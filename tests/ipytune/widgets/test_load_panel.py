"""The load panel shows a measurement as it goes; its buttons are its methods; what it sends is bounded, without key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipytune.endpoints import Unauthorized
from ipytune.load import Plan
from ipytune.mock import Behaviour, MockServer, start_mock
from ipytune.widgets.load import LoadPanel
from tests.browser.lab import until


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with start_mock(Behaviour(ttft=0.01, itl=0.002, tokens=8), process=False) as running:
        yield running


def _plan(**fields: object) -> Plan:
    return Plan.model_validate({"concurrency": (1, 2), "requests": 5, "output_tokens": 8, **fields})


def test_nothing_has_begun(mock: MockServer) -> None:
    panel = LoadPanel(mock.endpoint(), _plan())
    assert (panel.phase, panel.can_start, panel.can_stop, panel.rows) == ("idle", True, False, [])
    assert panel.report is None
    with pytest.raises(ValueError, match="Nothing was started"):
        panel.wait()
    assert mock.stats().requests == 0


def test_run_waits_and_shows_curves_and_a_row_for_each_step(mock: MockServer, tmp_path: Path) -> None:
    panel = LoadPanel(mock.endpoint(), _plan(), tmp_path / "out")
    report = panel.run()
    assert report.succeeded == 10 and panel.report == report
    assert (panel.phase, panel.progress, panel.can_start, panel.can_stop) == ("completed", 100.0, True, False)
    assert [row[0] for row in panel.rows] == ["1 at once", "2 at once"]
    assert [line["name"] for line in panel.charts[0]["lines"]] == ["p50"]
    assert ["Requests", "10"] in panel.facts
    html = panel.static_html()
    assert "<svg" in html and "2 at once" in html and "http" not in html.replace("http://www.w3.org", "")
    assert "2 at once" in panel.static_text()
    assert (tmp_path / "out" / "report.html").exists()


def test_the_buttons_are_the_methods(mock: MockServer) -> None:
    panel = LoadPanel(mock.endpoint(), _plan(requests=None, duration=120))
    panel._on_message(panel, {"do": "start"}, [])
    until(lambda: any(label == "Done" and value != "0" for label, value in panel.facts), "some answers in the panel")
    assert panel.can_stop and not panel.can_start
    panel._on_message(panel, {"do": "start"}, [])
    assert "going on" in panel.problem["what"]
    panel._on_message(panel, {"do": "stop"}, [])
    assert panel.phase in ("stopping", "stopped")
    until(lambda: panel.phase == "stopped", "the end in the panel")
    assert panel.report is not None and panel.report.steps[0].ended == "stopped"


def test_a_refusal_is_shown_and_raised(tmp_path: Path) -> None:
    with start_mock(Behaviour(key="marker-key-77"), process=False) as mock:
        endpoint = mock.endpoint().model_copy(update={"key_file": None})
        panel = LoadPanel(endpoint, _plan())
        with pytest.raises(Unauthorized):
            panel.run()
    assert panel.phase == "failed" and "401" in panel.problem["what"]
    assert "401" in panel.static_html()


def test_the_key_is_in_no_state_and_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANEL_KEY", "marker-key-78")
    with start_mock(Behaviour(key="marker-key-78"), process=False) as mock:
        panel = LoadPanel(mock.endpoint(key_env="PANEL_KEY"), _plan())
        panel.run()
    state = json.dumps(panel.get_state(), default=repr)
    assert "marker-key-78" not in state + panel.static_html() + panel.static_text() + repr(panel)


def test_what_is_sent_does_not_grow_with_the_number_of_requests(mock: MockServer) -> None:
    small, large = LoadPanel(mock.endpoint(), _plan(requests=2)), LoadPanel(mock.endpoint(), _plan(requests=300))
    mock.behave(ttft=0.0, itl=0.0)
    small.run()
    large.run()

    def size(panel: LoadPanel) -> int:
        return len(json.dumps({name: getattr(panel, name) for name in ("facts", "rows", "charts", "notes")}))

    assert size(large) < size(small) + 1500
