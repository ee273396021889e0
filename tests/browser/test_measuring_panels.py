"""Evaluation and load in JupyterLab in a real browser: started, watched, stopped, in the saved notebook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from ipytune.mock import Behaviour, MockServer, start_mock
from tests.browser.lab import Lab, browser_page, lab_server, open_notebook, panel, run_cell, until

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("chromium_path")]
SECRET = "measured-SECRET-2290"
ANSWERS = {f"{n} + 1?": {"base": str(n + 1) if n < 3 else "many", "tuned": str(n + 1)} for n in range(8)}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_server(tmp_path_factory.mktemp("lab")) as running:
        (running.folder / "key").write_text(SECRET)
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    with browser_page() as opened:
        yield opened


def endpoint(mock: MockServer, lab: Lab, model: str) -> str:
    key = str(lab.folder / "key")
    return f"Endpoint(name={model!r}, base_url={mock.url!r}, model={model!r}, key_file={key!r})"


def test_an_evaluation_shows_failures_first_and_is_in_the_saved_notebook(lab: Lab, page: Page) -> None:
    lines = (
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": told["tuned"]}]}
        for asked, told in ANSWERS.items()
    )
    (lab.folder / "held-out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with start_mock(Behaviour(models=("base", "tuned"), answers=ANSWERS, key=SECRET, ttft=0.05), process=False) as mock:
        both = ", ".join(endpoint(mock, lab, model) for model in ("base", "tuned"))
        source = (
            "from ipytune.endpoints import Endpoint\nfrom ipytune.widgets import EvaluationPanel\n"
            f"panel = EvaluationPanel('held-out.jsonl', [{both}], ['exact'], concurrency=2)\npanel"
        )
        lab.write_notebook("evaluation.ipynb", [source, "panel"])
        open_notebook(page, lab, "evaluation.ipynb")
        run_cell(page, 0)
        shown = panel(page, "Evaluation").first
        shown.get_by_role("button", name="Start").focus()
        page.keyboard.press("Enter")
        expect(shown.get_by_role("status")).to_have_text("completed", timeout=30_000)
        results = shown.locator("table").first
        expect(results.locator("tbody tr").nth(0)).to_contain_text(re.compile(r"base.*37\.5 %"))
        expect(results.locator("tbody tr").nth(1)).to_contain_text(re.compile(r"tuned.*100"))
        expect(shown.get_by_label("What the numbers say").get_by_role("listitem").first).to_be_visible()
        cases = shown.get_by_role("region", name="Questions, failures first").locator("tbody tr")
        expect(cases.first).to_contain_text("many")
        run_cell(page, 1)
        expect(panel(page, "Evaluation").nth(1).locator("table").first).to_contain_text("37.5 %")
    page.keyboard.press("Control+s")
    saved = lab.folder / "evaluation.ipynb"
    until(lambda: "37.5" in saved.read_text(), "the saved notebook", 20)
    assert SECRET not in page.content() and SECRET not in saved.read_text()


def test_a_load_is_stopped_and_what_was_measured_stays(lab: Lab, page: Page) -> None:
    with start_mock(Behaviour(models=("base",), key=SECRET, tokens=8, ttft=0.02, itl=0.002)) as mock:
        source = (
            "from ipytune.endpoints import Endpoint\nfrom ipytune.load import Plan\n"
            "from ipytune.widgets import LoadPanel\n"
            "plan = Plan(concurrency=(1, 2, 4), duration=1.5, output_tokens=8, processes=1)\n"
            f"panel = LoadPanel({endpoint(mock, lab, 'base')}, plan)\npanel"
        )
        lab.write_notebook("load.ipynb", [source])
        open_notebook(page, lab, "load.ipynb")
        run_cell(page, 0)
        shown = panel(page, "Load").first
        shown.get_by_role("button", name="Start").click()
        steps = shown.get_by_label("Steps of the measurement").locator("tbody tr")
        expect(steps.nth(1)).to_be_visible(timeout=60_000)
        shown.get_by_role("button", name="Stop").click()
        expect(shown.get_by_role("status")).to_have_text("stopped", timeout=30_000)
        expect(shown.get_by_role("button", name="Start")).to_be_enabled()
        assert steps.count() >= 2
        expect(shown.locator("svg.ipt-chart").first).to_be_visible()
    page.keyboard.press("Control+s")
    saved = lab.folder / "load.ipynb"
    until(lambda: "stopped" in saved.read_text(), "the saved notebook", 20)
    assert SECRET not in page.content() and SECRET not in saved.read_text()
